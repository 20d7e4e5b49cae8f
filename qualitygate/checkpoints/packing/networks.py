"""Stored network objects to groups of tensors under flat dotted names. Their source code, where a file carries it, is never looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.packing.records import Damaged

TF_CLASSES = ("tfutil.Network", "tflib.network.Network")
"""Ends of the class names of TensorFlow-era networks."""
_TF_UNPREFIXED = "synthesis"  # this component's variables are known by their bare names


def is_module(state: Any) -> bool:
    """Whether an object's attributes are those of a torch module."""
    return (
        isinstance(state, Mapping)
        and isinstance(state.get("_parameters"), Mapping)
        and isinstance(state.get("_modules"), Mapping)
    )


def module_group(class_name: str, state: Mapping[str, Any]) -> TensorGroup:
    """The state dict of a stored torch module, nested modules included; buffers that a state dict leaves out are left out.

    Settings are ``init_args`` and ``init_kwargs`` where NVIDIA's persistence stored them.
    """
    passing = state.get("_non_persistent_buffers_set") or ()
    buffers = state.get("_buffers") or {}
    if not isinstance(buffers, Mapping) or not isinstance(passing, (list, tuple)):
        raise Damaged("a module whose buffers are not named")
    own = {**state["_parameters"], **{name: buffer for name, buffer in buffers.items() if name not in passing}}
    tensors = {str(name): tensor for name, tensor in own.items() if isinstance(tensor, Tensor)}
    for name, part in state["_modules"].items():
        if isinstance(part, TensorGroup):
            tensors |= {f"{name}.{inner}": tensor for inner, tensor in part.tensors.items()}
    settings = {}
    if "_init_kwargs" in state:
        settings = {"init_args": list(state.get("_init_args") or ()), "init_kwargs": state["_init_kwargs"]}
    return TensorGroup("", tensors, settings, class_name)


def tf_group(state: Mapping[str, Any]) -> TensorGroup:
    """A TensorFlow-era network: its variables and those of its components, e.g. ``mapping/Dense0/weight``, ``4x4/Const/const``, ``dlatent_avg``."""
    variables = state.get("variables") or ()
    components = state.get("components") or {}
    if not isinstance(variables, (list, tuple)) or not isinstance(components, Mapping):
        raise Damaged("a TensorFlow-era network without variables")
    tensors = {}
    for variable in variables:
        if isinstance(variable, (list, tuple)) and len(variable) == 2 and isinstance(variable[1], Tensor):
            tensors[str(variable[0])] = variable[1]
    for name, component in components.items():
        if isinstance(component, TensorGroup):
            prefix = "" if name == _TF_UNPREFIXED else f"{name}/"
            tensors |= {prefix + inner: tensor for inner, tensor in component.tensors.items()}
    settings = state.get("static_kwargs")
    kind = state.get("build_func_name")
    return TensorGroup(
        "", tensors, settings if isinstance(settings, Mapping) else {}, kind if isinstance(kind, str) else None
    )
