"""Stored network objects as groups of tensors under flat names. The source code some files carry is never looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.packing.bounds import MAX_NAME, over_limit
from qualitygate.checkpoints.packing.records import Damaged

TF_CLASSES = ("tfutil.Network", "tflib.network.Network")
"""How the class names of TensorFlow-era networks end."""
_TF_UNPREFIXED = "synthesis"  # the variables of this component go by their bare names


def is_module(state: Any) -> bool:
    """Whether an object's attributes are those of a torch module."""
    return isinstance(state, Mapping) and all(isinstance(state.get(part), Mapping) for part in ("_parameters", "_modules"))


def module_group(class_name: str, state: Mapping[str, Any]) -> TensorGroup:
    """The state dict of a stored torch module and the modules in it; buffers that a state dict leaves out are left out.

    Settings are ``init_args`` (list) and ``init_kwargs`` (dict), where NVIDIA's persistence stored them.
    """
    buffers, passing = state.get("_buffers") or {}, state.get("_non_persistent_buffers_set") or ()
    if not isinstance(buffers, Mapping) or not isinstance(passing, (list, tuple)):
        raise Damaged("a module whose buffers have no names")
    left_out = {name for name in passing if isinstance(name, str)}
    own = [*state["_parameters"].items(), *((name, buffer) for name, buffer in buffers.items() if name not in left_out)]
    named = [(str(name), tensor) for name, tensor in own if isinstance(tensor, Tensor)]
    for part, module in state["_modules"].items():
        if isinstance(module, TensorGroup):
            named += [(_joined(f"{part}.", name), tensor) for name, tensor in module.tensors.items()]
    settings = {}
    if isinstance(state.get("_init_kwargs"), Mapping):
        settings = {"init_args": list(state.get("_init_args") or ()), "init_kwargs": dict(state["_init_kwargs"])}
    return TensorGroup("", dict(named), settings, class_name)


def tf_group(state: Mapping[str, Any]) -> TensorGroup:
    """A TensorFlow-era network: its variables, and those of its components under theirs.

    Names are as the networks' own code has them: ``dlatent_avg``, ``mapping/Dense0/weight``, ``4x4/Const/const``.
    Settings are its ``static_kwargs``, the kind is the function that built it, e.g. ``"G_main"``.
    """
    variables, components = state.get("variables") or (), state.get("components") or {}
    if not isinstance(variables, (list, tuple)) or not isinstance(components, Mapping):
        raise Damaged("a TensorFlow-era network without variables")
    pairs = [pair for pair in variables if isinstance(pair, (list, tuple)) and len(pair) == 2]
    named = [(_joined("", name), _tensor(value)) for name, value in pairs if isinstance(name, str)]
    for part, network in components.items():
        if isinstance(network, TensorGroup):
            prefix = "" if part == _TF_UNPREFIXED else f"{part}/"
            named += [(_joined(prefix, name), tensor) for name, tensor in network.tensors.items()]
    settings, builder = state.get("static_kwargs"), state.get("build_func_name")
    return TensorGroup(
        "",
        {name: tensor for name, tensor in named if tensor is not None},
        dict(settings) if isinstance(settings, Mapping) else {},
        builder if isinstance(builder, str) else None,
    )


def _tensor(value: Any) -> Tensor | None:
    """A variable's value; single numbers such as ``lod`` were stored as scalars."""
    if isinstance(value, (int, float)):
        return torch.tensor(value)
    return value if isinstance(value, Tensor) else None


def _joined(prefix: str, name: str) -> str:
    """The flat name of a tensor; measured before it is made, as there may be many."""
    if len(prefix) + len(name) > MAX_NAME:
        raise over_limit("characters in the name of a tensor", MAX_NAME)
    return prefix + name
