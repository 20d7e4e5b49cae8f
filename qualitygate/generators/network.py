"""What generators and discriminators share: settings that build them again, a fingerprint, and inner tensors to listen to."""

from __future__ import annotations

import abc
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from qualitygate.errors import InputError
from qualitygate.generators.passes import on_host


class Network(nn.Module):
    """Base of both.

    Attributes:
        family: a wrapper around a generator has that of what it wraps.
        settings: keyword arguments of `from_settings` that build this network again; JSON values only.
        label_size: number of classes; 0 where there are none.
        image_shape: channels, height, width.
    """

    family: ClassVar[str]
    settings: dict[str, Any]
    label_size: int = 0
    image_shape: tuple[int, int, int]

    def __init__(self) -> None:
        super().__init__()
        self._taps: dict[str, Tensor] | None = None

    @classmethod
    def from_settings(cls, **settings: Any) -> Self:
        """Its tensors hold nothing yet."""
        return cls(**settings)

    @property
    def stored_as(self) -> str:
        """The name under which files keep it: the family of its class, which is another one than its own only for a wrapper."""
        return type(self).family

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def fingerprint(self) -> str:
        """SHA-256 of family, settings and tensors."""
        return tensor_digest(self, json.dumps([self.stored_as, self.settings], sort_keys=True))

    def taps(self, *inputs: Any, names: Sequence[str]) -> dict[str, Tensor]:
        """Inner tensors of any shape, by name, of one full pass, for tests: whatever the family passes through `tap`."""
        seen = self._taps = {}
        try:
            self(*inputs)
        finally:
            self._taps = None
        if missing := [name for name in names if name not in seen]:
            raise InputError("The network has no such inner tensor", ", ".join(missing), f"one of {', '.join(sorted(seen))}")
        return {name: seen[name] for name in names}

    def tap(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor, of any shape, as it is. Called by families on their inner tensors; free unless `taps` is listening."""
        if self._taps is not None:
            self._taps[name] = tensor.clone()
        return tensor


def settings_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`Network.settings` from the ``locals()`` of a constructor that has no other variables yet: a copy of its arguments."""
    copied: dict[str, Any] = json.loads(json.dumps({name: value for name, value in arguments.items() if name not in ("self", "__class__")}))
    return copied


def tensor_digest(network: nn.Module, description: str = "") -> str:
    """SHA-256 over a description and the names and values of a network's tensors, in hexadecimal."""
    digest = hashlib.sha256(description.encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        # flat first: a single number, such as a batch norm's counter, cannot be viewed as bytes
        digest.update(on_host(tensor.detach()).flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def at_least_float32(x: Tensor) -> Tensor:
    """A tensor of any shape in float32, or in its own numbers where these are finer."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def one_hot(labels: Tensor, label_size: int) -> Tensor:
    """Classes (N,) int64 as one-hot float32 rows (N, label size); rows that are vectors already stay as they are."""
    return (nn.functional.one_hot(labels, label_size) if labels.dtype == torch.int64 else labels).float()


def minibatch_deviation(x: Tensor, group: int | None, deviations: int = 1) -> Tensor:
    """Standard deviation of units of x (N, units, height, width) over groups of samples, averaged over units and positions (Karras et al.
    2018, section 3): (N, deviations, height, width), one for each of so many sets of units.

    All sources put samples i, i + N/G, i + 2N/G, … into a group of G = min(group, N), the whole batch if None. They fail where N is no
    multiple of G; here G is then the largest number below that divides N.
    """
    samples, _, height, width = x.shape
    size = next(g for g in range(min(group or samples, samples), 0, -1) if samples % g == 0)
    sets = x.reshape(size, samples // size, deviations, -1, height, width)
    deviation = torch.sqrt(sets.var(dim=0, correction=0) + 1e-8).mean(dim=(2, 3, 4))
    return deviation.repeat(size, 1)[:, :, None, None].expand(-1, -1, height, width)


class Discriminator(Network, abc.ABC):
    """Each passes two inner tensors through `tap`: as ``"features"`` the last features that still have a place in the image, (N, units,
    height, width), the same for an image whatever else is in the batch; as ``"vector"`` what its value is a linear function of, (N, …).
    """

    @abc.abstractmethod
    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Value of each image (N,), higher = more real, before any sigmoid. Images are (N, channels, height, width) in the raw range
        of the family's generator; labels are classes (int64) or label vectors."""

    def alone(self) -> Self:
        """The same discriminator, weights shared, judging each image as if it were the only one in its batch: another object only in
        families that look at how much a batch varies."""
        return self
