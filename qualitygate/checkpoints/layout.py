"""From named tensors to a network: every way a family is stored is one declarative `Layout`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.errors import CheckpointError

ANY_FAMILY = "any"  # family of a layout whose groups say themselves of which family they are

_CACHE_LINE = 64  # bytes; torch's own allocations start at one
_LISTED = 8  # how many tensors an error names before it counts the rest


class DoesNotFit(Exception):  # noqa: N818 - a finding while matching, not an error anyone meets
    """Raised while matching: this group of tensors is not of this layout, and why."""


Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Built(Generic[Network]):
    """A network (built on the meta device) and its tensors under its own names.

    Attributes:
        module: the network, without storage.
        tensors: its parameters and buffers, by its own names; the tensors of the file wherever possible, so that no second copy is made.
        ignored: names in the file that the network does not need.
    """

    module: Network
    tensors: Mapping[str, Tensor]
    ignored: tuple[str, ...] = ()


Build = Callable[[TensorGroup], Built[Any]]


@dataclass(frozen=True)
class Layout:
    """One way of storing one family.

    Attributes:
        name: what people call it, e.g. ``"genforce StyleGAN2"``.
        family: family of the network; of a discriminator, that of the generators it is stored beside; or `ANY_FAMILY`.
        role: ``"generator"`` or ``"discriminator"``.
        required: regular expressions; each must match the whole of at least one tensor name.
        build: reads the settings off the shapes and stored settings, builds the network on the meta device and renames the
            tensors; raises `DoesNotFit` if the group turns out to be something else.
        asks: settings that no tensor shows; ``build`` finds them in ``group.settings`` where they were stored, or given.
    """

    name: str
    family: str
    role: str
    required: tuple[str, ...]
    build: Build
    asks: tuple[str, ...] = ()

    def missing(self, group: TensorGroup) -> list[str]:
        """The required patterns that no tensor name matches."""
        return [pattern for pattern in self.required if not any(re.fullmatch(pattern, name) for name in group.tensors)]


def declared(layouts: list[Layout], family: str, role: str, name: str, required: str, asks: str = "") -> Callable[[Build], Build]:
    """Decorator of a function that builds: adds its layout to the module's ``layouts``, so that the rule stands where it is followed.

    Between the patterns in ``required``, and the settings in ``asks``, are spaces.
    """

    def add(build: Build) -> Build:
        layouts.append(Layout(name, family, role, tuple(required.split()), build, tuple(asks.split())))
        return build

    return add


def assemble(built: Built[Network], where: str) -> Network:
    """The network with its tensors in place, in evaluation mode and without gradients; an error says all at once that does not fit."""
    wanted = built.module.state_dict()
    problems = [f"missing {name} {tuple(tensor.shape)}" for name, tensor in wanted.items() if name not in built.tensors]
    problems += [f"unexpected {name}" for name in built.tensors if name not in wanted]
    problems += [
        f"{name} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
        for name, tensor in built.tensors.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    if problems:
        raise CheckpointError(
            f"The tensors of {where} do not fit together",
            listed(problems),
            f"the tensors of a {type(built.module).__name__} with the settings read off this file",
            "check that the file is complete and that nothing was renamed",
        )
    tensors = {name: _as_stored(tensor, wanted[name], name, where) for name, tensor in built.tensors.items()}
    built.module.load_state_dict(tensors, assign=True)
    return built.module.eval().requires_grad_(False)


def listed(problems: Sequence[str]) -> str:
    """All that does not fit, in one line; beyond a screenful, how many more there are."""
    more = f" … and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    return "; ".join(problems[:_LISTED]) + more


def _as_stored(tensor: Tensor, like: Tensor, name: str, where: str) -> Tensor:
    tensor = tensor.detach().to(like.dtype)
    # a sum is not finite if a value is not, and takes a tenth of the time; the values decide where a sum overflows
    if tensor.is_floating_point() and not tensor.sum().isfinite() and not tensor.isfinite().all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"The weights of {where} are not finite",
            f"{bad} of {tensor.numel()} values of {name} are NaN or infinite",
            "finite weights",
            "take an earlier snapshot: the training of this one has diverged",
        )
    # a product of matrices may have other last bits where one does not start at a cache line; those of dense layers are small
    return tensor.clone() if tensor.ndim <= 2 and tensor.data_ptr() % _CACHE_LINE else tensor
