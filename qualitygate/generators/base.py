"""A generator as the papers see it: a chain of layers that can be run up to a layer, read, edited there, and resumed.

A family implements three steps and nothing else: `begin` (latent to whatever the first layer reads), `advance` (one layer) and
`finish` (last activation to image). Everything that scores, edits or stops works between those steps, on `State`.
"""

from __future__ import annotations

import abc
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from qualitygate.errors import InputError, LatentsError, LayerError
from qualitygate.latents import Latents

Edit = Callable[[Tensor], Tensor]
"""A pure edit of one layer's activation (N, units, height, width); returns a new tensor."""

LayerLike = int | str
"""A layer by index (``2``), by name (``"layer2"``), or by resolution (``"8x8"``: the last layer of that size)."""


@dataclass(frozen=True)
class Layer:
    """One layer of the chain.

    Attributes:
        index: position in order of synthesis, from 0.
        name: name within the family.
        units, height, width: shape of the activation, after the nonlinearity.
        operations: floating-point operations of one sample from the latent up to and including this layer, 2 per multiply-add of the
            cheapest exact form.
    """

    index: int
    name: str
    units: int
    height: int
    width: int
    operations: int

    @property
    def neurons(self) -> int:
        return self.units * self.height * self.width

    @property
    def resolution(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class State:
    """What stands between two layers.

    Attributes:
        layer: index of the layer whose output this is; -1 before the first.
        activation: (N, units, height, width), after the layer's nonlinearity. An edit of it reaches every consumer.
        carry: whatever else the rest of the chain needs (styles, the image so far, a shortcut); opaque outside the family,
            and made of tuples and dictionaries of tensors with a row for each sample.
    """

    layer: int
    activation: Tensor
    carry: Any = None

    def rows(self, rows: Tensor) -> State:
        """The state of some of the samples. ``carry`` is nested tuples and dictionaries of tensors with a row for each sample."""
        return replace(
            self, activation=self.activation[rows], carry=tree_map_only(Tensor, lambda part: part[rows], self.carry)
        )

    @staticmethod
    def concatenated(states: Sequence[State]) -> State:
        """The states of several batches at the same layer as one."""
        first = states[0]
        carry = tree_map(
            lambda *parts: torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0],
            *(state.carry for state in states),
        )
        return replace(first, activation=torch.cat([state.activation for state in states]), carry=carry)

    def edited(self, activation: Tensor) -> State:
        if activation.shape != self.activation.shape:
            raise InputError(
                f"An edit of layer {self.layer} changed the activation's shape",
                str(tuple(activation.shape)),
                str(tuple(self.activation.shape)),
            )
        return replace(self, activation=activation)


@dataclass(frozen=True)
class Part:
    """Some positions of a layer's activation.

    Attributes:
        layer: index of the layer.
        positions: which of the positions ``y · width + x``.
        activation: (N, positions, units); overwritten when the next part is made.
    """

    layer: int
    positions: slice
    activation: Tensor

    @staticmethod
    def whole(state: State) -> Part:
        """All positions of a state."""
        return Part(state.layer, slice(None), state.activation.flatten(2).transpose(1, 2))


@dataclass(frozen=True)
class Origin:
    """Where a generator came from.

    Attributes:
        name: file name of the checkpoint, or what the generator is called.
        sha256: of the file's bytes, or of its tensors and settings if there is no file.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class Presets:
    """Layers that the papers (or, where they are silent, our SPEC) use for a family, as indices.

    Attributes:
        low_rate: layers whose low-rate neurons are counted and ablated.
        curvature: layers whose local activation is scored.
        stop: stopping layer of sequential correction.
    """

    low_rate: tuple[int, ...]
    curvature: tuple[int, ...]
    stop: int


class _Network(nn.Module):
    """What generators and discriminators share: settings that build them again, and inner tensors that can be listened to.

    Attributes:
        family: name of the family; a wrapper around a generator has that of what it wraps.
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
        """A network with these `settings`; its tensors hold nothing yet."""
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
        """Named inner tensors of one full pass over ``inputs``, for tests and explanations: whatever the family passes through `tap`."""
        self._taps = {}
        try:
            self(*inputs)
            seen = self._taps
        finally:
            self._taps = None
        if missing := [name for name in names if name not in seen]:
            raise InputError(
                "The network has no such inner tensor", ", ".join(missing), f"one of {', '.join(sorted(seen))}"
            )
        return {name: seen[name] for name in names}

    def tap(self, name: str, tensor: Tensor) -> Tensor:
        """Called by families on their inner tensors; free unless `taps` is listening."""
        if self._taps is not None:
            self._taps[name] = tensor.clone()
        return tensor


class Discriminator(_Network, abc.ABC):
    """Base of the discriminators that come with a family.

    Each passes two inner tensors through `tap`: as ``"features"`` the last features that still have a place in the image, (N, units,
    height, width), the same for an image whatever else is in the batch; as ``"vector"`` what its value is a linear function of, (N, …).
    """

    @abc.abstractmethod
    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Value of each image (N,), higher = more real, before any sigmoid. Images are (N, channels, height, width) in the raw range
        of the family's generator; labels are classes (int64) or label vectors."""

    def alone(self) -> Self:
        """The same discriminator judging each image as if it were the only one in its batch; the weights are shared.

        Only families that look at how much a batch varies have to say anything here.
        """
        return self


class Generator(_Network, abc.ABC):
    """Base of all generator families.

    A family sets the attributes below in its constructor, whose keyword arguments are exactly `settings`; its parameters are the
    ones of the safetensors file that `qualitygate convert` writes. Parameters may be on the meta device while it is built.

    Attributes:
        truncates: where ``Sampling.psi`` acts: ``"z"`` (redrawn components) or ``"w"`` (towards the mean style, in `begin`).
        judged_by: family whose discriminators are stored beside it, where that is not its own.
        layers: the chain.
        latent_size: D, length of z.
        operations: floating-point operations of one whole image, counted like `Layer.operations`.
        presets: layers to use when nothing else is asked for.
        origin: the checkpoint it was loaded from; None for a generator made in memory.
    """

    truncates: ClassVar[str] = "z"
    judged_by: ClassVar[str] = ""

    layers: tuple[Layer, ...]
    latent_size: int
    operations: int
    presets: Presets
    origin: Origin | None = None

    # what a family implements

    @abc.abstractmethod
    def begin(self, latents: Latents) -> State:
        """Everything before the first layer: normalisation, mapping, truncation in w, labels. Returns a state with layer -1."""

    @abc.abstractmethod
    def advance(self, state: State) -> State:
        """Layer ``state.layer + 1``. Consumers of ``state.activation`` other than that layer (to-RGB) run here too, so that an
        edit made between two layers reaches all of them. Never changes the state it is given."""

    @abc.abstractmethod
    def finish(self, state: State) -> Tensor:
        """Image (N, channels, height, width) in the family's raw range, from the state after the last layer."""

    # what a family may know better

    def axes_reaching(self, layer: int) -> range:
        """Latent axes that can influence a layer; all, unless the family knows better."""
        return range(self.latent_size)

    def begin_moved(self, latents: Latents, axes: Tensor, distances: Tensor) -> State:
        """The state of latents in z moved along axes: before the first layer, or after it where that is cheaper moved than run.

        Args:
            latents: N samples, checked and on the generator's device.
            axes: int64 (A,), on that device.
            distances: float32 (P,), on that device.

        Returns:
            state of P · N · A rows: distances outermost, then samples, then axes.
        """
        directions = nn.functional.one_hot(axes, latents.z.shape[1]).to(latents.z)
        z = latents.z[:, None] + distances[:, None, None, None] * directions
        labels = None if latents.labels is None else _grid_rows(latents.labels, len(distances), len(axes))
        ids = np.tile(np.repeat(latents.ids, len(axes)), len(distances))
        return self.begin(replace(latents, ids=ids, z=z.flatten(0, 2), labels=labels))

    def by_position(self, layer: int) -> Callable[[State], Iterator[Tensor]] | None:
        """How to run a layer a position at a time, in order of rows: from the state before it to activations (N, units), each of which
        is overwritten by the next. None where that is no better than running it whole."""
        return None

    # what everyone else uses

    def forward(self, latents: Latents | Tensor, edits: Mapping[int, Edit] | None = None) -> Tensor:
        """Images (N, channels, height, width), float32 in [-1, 1].

        Args:
            latents: latents, or a bare z tensor (N, D) where there are no labels.
            edits: edit to apply after each layer of the given index.
        """
        return self.resume(self.start(latents), edits)

    def start(self, latents: Latents | Tensor) -> State:
        """The state before the first layer, with the latents checked and brought to the generator's device."""
        return self.begin(self.checked(latents).to(self.device))

    def states(self, state: State, upto: int | None = None, edits: Mapping[int, Edit] | None = None) -> Iterator[State]:
        """The states after each further layer up to ``upto`` (default: the last), each already edited."""
        last = self.layers[-1].index if upto is None else upto
        while state.layer < last:
            state = self.advance(state)
            if edits and state.layer in edits:
                state = state.edited(edits[state.layer](state.activation))
            yield state

    def run(self, state: State, upto: int, edits: Mapping[int, Edit] | None = None) -> State:
        """The state after layer ``upto``."""
        return deque(self.states(state, upto, edits), maxlen=1).pop() if state.layer < upto else state

    def parts(self, state: State, upto: int) -> Iterator[Part]:
        """The activations of the layers after ``state`` up to ``upto``, for readers that need none of them as a whole: the last comes
        by position where the family has a way."""
        positions = self.by_position(upto) if upto > state.layer else None
        last = state
        for last in self.states(state, upto if positions is None else upto - 1):
            yield Part.whole(last)
        for position, activation in enumerate(() if positions is None else positions(last)):
            yield Part(upto, slice(position, position + 1), activation[:, None])

    def resume(self, state: State, edits: Mapping[int, Edit] | None = None) -> Tensor:
        """Images from any state, clamped to [-1, 1]."""
        return self.finish(self.run(state, self.layers[-1].index, edits)).clamp(-1.0, 1.0)

    def identity(self) -> Origin:
        """The origin, or name and fingerprint of a generator made in memory."""
        if self.origin is not None:
            return self.origin
        return Origin(f"{self.stored_as} in memory", self.fingerprint())

    def layer(self, which: LayerLike) -> Layer:
        """The layer of that index, name or resolution.

        Raises:
            LayerError: there is none.
        """
        if isinstance(which, int) or which.lstrip("-").isdigit():
            found = [layer for layer in self.layers if layer.index == int(which)]
        else:
            found = [layer for layer in self.layers if which in (layer.name, layer.resolution)]
        if not found:
            have = ", ".join(f"{layer.index} ({layer.name}, {layer.resolution})" for layer in self.layers)
            raise LayerError("The generator has no such layer", repr(which), f"one of {have}")
        return found[-1]

    def layer_indices(self, which: Iterable[LayerLike]) -> tuple[int, ...]:
        """Indices of the given layers, in order of synthesis, each once."""
        indices = tuple(sorted({self.layer(one).index for one in which}))
        if not indices:
            raise LayerError("No layer was chosen", "an empty list", "at least one layer")
        return indices

    def label_vectors(self, latents: Latents) -> Tensor:
        """Labels as float32 rows (N, label size): one-hot for classes, as they are for vectors."""
        labels = latents.labels
        if labels is None:
            raise LatentsError(f"{self.family} is conditional", "latents without labels", f"{self.label_size} classes")
        return one_hot(labels, self.label_size)

    def checked(self, latents: Latents | Tensor) -> Latents:
        """The latents, or a bare z as such, if they fit this generator.

        Raises:
            LatentsError: wrong size or space, labels missing or of no class.
        """
        if isinstance(latents, Tensor):
            latents = Latents(np.arange(len(latents)), None, latents)
        if latents.z.ndim != 2 or (latents.space == "z" and latents.z.shape[1] != self.latent_size):
            raise LatentsError(
                "The latents do not fit the generator", f"shape {tuple(latents.z.shape)}", f"(N, {self.latent_size})"
            )
        if latents.space == "w" and self.truncates != "w":
            raise LatentsError(f"{self.family} has no mapping network", "latents in w", "latents in z")
        if self.label_size and latents.labels is None and latents.space == "z":
            raise LatentsError(
                "The generator is conditional", "latents without labels", f"a class in [0, {self.label_size}) each"
            )
        labels = latents.labels
        if (
            labels is not None
            and labels.dtype == torch.int64
            and bool(((labels < 0) | (labels >= self.label_size)).any())
        ):
            raise LatentsError(
                "A label is of no class", f"labels {int(labels.min())} … {int(labels.max())}", f"[0, {self.label_size})"
            )
        return latents


def _grid_rows(rows: Tensor, distances: int, axes: int) -> Tensor:
    """Rows (N, …) as they stand in `Generator.begin_moved`: (distances · N · axes, …)."""
    return rows[None, :, None].expand(distances, -1, axes, *rows.shape[1:]).flatten(0, 2)


def tensor_digest(network: nn.Module, description: str = "") -> str:
    """SHA-256 over a description and the names and values of a network's tensors, in hexadecimal."""
    digest = hashlib.sha256(description.encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        # flat first: a single number, such as a batch norm's counter, cannot be viewed as bytes
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def one_hot(labels: Tensor, label_size: int) -> Tensor:
    """Classes (N,) int64 as one-hot float32 rows (N, label size); rows that are vectors already stay as they are."""
    if labels.dtype == torch.int64:
        return nn.functional.one_hot(labels, label_size).float()
    return labels.float()
