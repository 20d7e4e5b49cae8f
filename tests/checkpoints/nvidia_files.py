"""Writes pickles like those of NVIDIA's repositories, without their code: the classes in them are names only."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = "raise SystemExit('the source code stored in a checkpoint was run')\n"


@dataclass(frozen=True)
class Name:
    """A global of the pickle; it need not exist."""

    module: str
    attribute: str


@dataclass(frozen=True)
class Made:
    """An object made by calling a global (``new``: by its ``__new__``), then given items and a state."""

    function: Name
    args: tuple[Any, ...] = ()
    state: Any = None
    items: Mapping[Any, Any] = field(default_factory=dict)
    new: bool = False


class ForeignPickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Pickles `Name` and `Made` as what they stand for, everything else as it is."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if not isinstance(obj, (Name, Made)):
            super().save(obj, save_persistent_id)
        elif (known := self.memo.get(id(obj))) is not None:
            self.write(self.get(known[0]))
        elif isinstance(obj, Name):
            self._save_name(obj)
        else:
            self.save(obj.function)
            self.save(obj.args)
            self.write(pickle.NEWOBJ if obj.new else pickle.REDUCE)
            self.memoize(obj)
            if obj.items:
                self.write(pickle.MARK)
                for part in (part for pair in obj.items.items() for part in pair):
                    self.save(part)
                self.write(pickle.SETITEMS)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)

    def _save_name(self, name: Name) -> None:
        if self.proto >= 4:
            self.save(name.module)
            self.save(name.attribute)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{name.module}\n{name.attribute}\n".encode())
        self.memoize(name)


def dump(path: Path, value: Any, protocol: int = 4) -> Path:
    """Pickle a value that may hold `Name` and `Made`."""
    with path.open("wb") as file:
        ForeignPickler(file, protocol).dump(value)
    return path


def easy_dict(**items: Any) -> Made:
    return Made(Name("dnnlib.util", "EasyDict"), new=True, items=items)


def persistent(class_name: str, state: Mapping[str, Any], source: str = SOURCE) -> Made:
    """An object as ``torch_utils.persistence`` stores it."""
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}
    return Made(Name("torch_utils.persistence", "_reconstruct_persistent_obj"), (easy_dict(**meta),))


def persistent_network(class_name: str, init_kwargs: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str = SOURCE) -> Made:
    """A network with its tensors in nested networks as their dotted names say; weights and biases are parameters."""
    parts: dict[str, dict[str, Tensor]] = {}
    own = {name: tensor for name, tensor in tensors.items() if "." not in name}
    for name, tensor in tensors.items():
        if "." in name:
            head, rest = name.split(".", 1)
            parts.setdefault(head, {})[rest] = tensor
    parameters = {name: torch.nn.Parameter(t) for name, t in own.items() if name.endswith(("weight", "bias"))}
    state = {
        "training": False,
        "_parameters": OrderedDict(parameters, absent=None),
        "_buffers": OrderedDict((name, t) for name, t in own.items() if name not in parameters) | {"passing": torch.ones(1)},
        "_non_persistent_buffers_set": {"passing"},
        "_backward_hooks": OrderedDict(),
        "_modules": OrderedDict((name, persistent_network("Part", {}, part, source)) for name, part in parts.items()),
        "_init_args": (),
        "_init_kwargs": easy_dict(**init_kwargs),
    }
    return persistent(class_name, state, source)


def write_nvidia_pickle(path: Path, networks: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Tensor]]], protocol: int = 4) -> Path:
    """A snapshot of StyleGAN2-ADA or StyleGAN3: ``{"G_ema": (class name, init_kwargs, state dict), ...}``."""
    stored: dict[str, Any] = {name: persistent_network(*network) for name, network in networks.items()}
    stored |= {"training_set_kwargs": easy_dict(class_name="training.dataset.ImageFolderDataset"), "augment_pipe": None}
    return dump(path, stored, protocol)


def tf_network(
    build: str, static_kwargs: Mapping[str, Any], tensors: Mapping[str, Tensor], class_name: Name = Name("dnnlib.tflib.network", "Network")
) -> Made:
    """A TensorFlow-era network; with tensors under ``mapping/`` it has components, as StyleGAN and StyleGAN2 have."""

    def network(name: str, build: str, variables: Mapping[str, Tensor], components: Mapping[str, Made]) -> Made:
        state = {
            "version": 4,
            "name": name,
            "static_kwargs": easy_dict(**static_kwargs),
            "components": easy_dict(**components),
            "build_module_src": SOURCE,
            "build_func_name": build,
            "variables": [(key, _scalar_or_array(tensor)) for key, tensor in variables.items()],
        }
        return Made(class_name, new=True, state=state)

    def chosen(choose: Callable[[str], bool]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in tensors.items() if choose(name)}

    mapping = {name.removeprefix("mapping/"): t for name, t in tensors.items() if name.startswith("mapping/")}
    if not mapping:
        return network(build, build, tensors, {})
    own = chosen(lambda name: name in ("dlatent_avg", "lod"))
    synthesis = chosen(lambda name: name not in own and not name.startswith("mapping/"))
    parts = {"synthesis": network("G_synthesis", "G_synthesis", synthesis, {}), "mapping": network("G_mapping", "G_mapping", mapping, {})}
    return network(build, build, own, parts)


def _scalar_or_array(tensor: Tensor) -> Any:
    """TensorFlow gave single numbers as numpy scalars."""
    array = tensor.detach().numpy()
    return array if array.ndim else array[()]


def write_tf_pickle(path: Path, networks: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Tensor]]], protocol: int = 3) -> Path:
    """A pickle of the TensorFlow era: ``{"G": (build function, static_kwargs, tensors), "D": …, "Gs": …}``.

    Tensors go by their merged names: ``mapping/Dense0/weight``, ``4x4/Const/const``, ``dlatent_avg``.
    """
    return dump(path, tuple(tf_network(*networks[name]) for name in ("G", "D", "Gs")), protocol)
