"""A generator as the papers see it: a chain of layers that can be run up to a layer, read, edited there, and resumed.

A family implements `begin`, `advance` and `finish`; everything that scores, edits or stops works between those steps, on `State`. Whatever
a family or its discriminator is written with can be imported from here.
"""

from __future__ import annotations

import abc
import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any, ClassVar, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from qualitygate.errors import InputError, LatentsError, LayerError
from qualitygate.generators.network import Discriminator as Discriminator
from qualitygate.generators.network import Network, at_least_float32, one_hot
from qualitygate.generators.passes import (
    MostRows,
    Progress,
    T,
    halves,
    micro_batch_on,
    micro_batches,
    on_host,
    padded_rows,
    scored_pass,
    scored_steps,
    silent,
)
from qualitygate.latents import Latents, Sampling, draw_latents
from qualitygate.records import GenerationPrecision

Edit = Callable[[Tensor], Tensor]
"""A pure edit of one layer's activation (N, units, height, width); returns a new tensor."""

Edits = Mapping[int, Edit]
"""What to edit after which layer, by index."""

EditsOfRows = Callable[[np.ndarray], Edits]
"""Edits that differ from sample to sample: those of the given rows (B,) of some samples. A row may stand there more than once."""

AnyEdits = Edits | EditsOfRows | None

LayerLike = int | str
"""A layer by index (``2``), by name (``"layer2"``), or by resolution (``"8x8"``: the last layer of that size)."""


@dataclass(frozen=True)
class Layer:
    """One layer of the chain: position in order of synthesis, name within the family, shape of the activation after the nonlinearity,
    and floating-point operations of one sample from the latent up to and including it, 2 per multiply-add of the cheapest exact form."""

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


def numbered(rows: Iterable[tuple[str, int, int, int]]) -> tuple[Layer, ...]:
    """The chain of layers given by name, units, height (the width is the same), and operations since the layer before."""
    rows = tuple(rows)
    spent = accumulate(operations for *_, operations in rows)
    return tuple(Layer(i, name, units, size, size, done) for i, ((name, units, size, _), done) in enumerate(zip(rows, spent, strict=True)))


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

    def rows(self, rows: Tensor | slice) -> State:
        """The state of some samples, int64 (n,) on its device, or from one to another."""
        return replace(self, activation=self.activation[rows], carry=tree_map_only(Tensor, lambda part: part[rows], self.carry))

    @staticmethod
    def concatenated(states: Sequence[State]) -> State:
        """The states of several batches at the same layer as one."""
        first = states[0]
        carry = tree_map(lambda *parts: torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0], *(state.carry for state in states))
        return replace(first, activation=torch.cat([state.activation for state in states]), carry=carry)

    def to(self, dtype: torch.dtype) -> State:
        """The state in other numbers; integers stay what they are."""
        carry = tree_map_only(Tensor, lambda part: part.to(dtype) if part.is_floating_point() else part, self.carry)
        return replace(self, activation=self.activation.to(dtype), carry=carry)

    def edited(self, activation: Tensor) -> State:
        """The state with another activation of the same shape (N, units, height, width)."""
        found, needed = tuple(activation.shape), tuple(self.activation.shape)
        if found != needed:
            raise InputError(f"An edit of layer {self.layer} changed the activation's shape", str(found), str(needed))
        return replace(self, activation=activation)


@dataclass(frozen=True)
class Origin:
    """File name of a generator's checkpoint and SHA-256 of its bytes; without a file, what the generator is called and the hash of its
    tensors and settings."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Presets:
    """Layers that the papers (or, where they are silent, our SPEC) use for a family, as indices: those whose low-rate neurons are counted
    and ablated, those whose local activation is scored, and where sequential correction stops."""

    low_rate: tuple[int, ...]
    curvature: tuple[int, ...]
    stop: int

    @classmethod
    def within(cls, layers: Sequence[Layer], low_rate: Iterable[int], curvature: int, stop: int) -> Presets:
        """As far as a chain has such layers; in the place of a single one the last."""
        last = len(layers) - 1
        return cls(tuple(index for index in low_rate if index <= last), (min(curvature, last),), min(stop, last))


class Generator(Network, abc.ABC):
    """Base of all generator families.

    A family sets the attributes below in its constructor, whose keyword arguments are exactly `settings`; its parameters are the
    ones of the safetensors file that `qualitygate convert` writes. Parameters may be on the meta device while it is built.

    Attributes:
        truncates: where ``Sampling.psi`` acts: ``"z"`` (redrawn components) or ``"w"`` (towards the mean style, in `begin`).
        judged_by: family whose discriminators are stored beside it, where that is not its own.
        rate: R of the low-rate score in the family's default policy; the papers' was chosen on PGGAN and StyleGAN2.
        layers: the chain.
        latent_size: D, length of z.
        operations: of one whole image, counted like `Layer.operations`.
        presets: layers to use when nothing else is asked for.
        origin: None for a generator made in memory.
        precision: numbers in which images are made; another one comes from `at`.
        begun_in: dtype of the state that the first layer starts from.
    """

    truncates: ClassVar[str] = "z"
    judged_by: ClassVar[str] = ""
    rate: ClassVar[float] = 0.3

    layers: tuple[Layer, ...]
    latent_size: int
    operations: int
    presets: Presets
    origin: Origin | None = None
    precision: GenerationPrecision = "float32"
    begun_in: torch.dtype = torch.float32
    _full: tuple[Generator, ...] = ()  # in a tuple, as it is no part of this network
    _micro_batch: int | None = None
    _most_rows: MostRows | None = None

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
        """The state of N latents in z, checked, moved along axes int64 (A,) by distances float32 (P,), all on the generator's device: of
        P · N · A rows, distances outermost, then samples, then axes. Before the first layer, or after it where that is cheaper moved
        than run."""
        directions = nn.functional.one_hot(axes, latents.z.shape[1]).to(latents.z)
        z = latents.z[:, None] + distances[:, None, None, None] * directions
        labels = latents.labels
        if labels is not None:
            labels = labels[None, :, None].expand(len(distances), -1, len(axes), *labels.shape[1:]).flatten(0, 2)
        ids = np.tile(np.repeat(latents.ids, len(axes)), len(distances))
        return self.begin(replace(latents, ids=ids, z=z.flatten(0, 2), labels=labels))

    def styles(self, latents: Latents | Tensor) -> Tensor | None:
        """w (N, size) before truncation, of latents in z or w; None of families without a mapping network."""
        return None

    @property
    def wrapped(self) -> Generator | None:
        """The generator that this one is made around and stored with; None of any that stands alone."""
        return None

    def by_position(self, layer: int) -> Callable[[State], Iterator[Tensor]] | None:
        """How to run a layer a position at a time, in order of rows: from the state before it to activations (N, units), each of which
        is overwritten by the next. None where that is no better than running it whole."""
        return None

    def lowered(self, dtype: torch.dtype) -> torch.dtype:
        """Brings all weights to a dtype, in place, or those that the family runs in it. The dtype that the first layer starts from."""
        self.to(dtype)
        return dtype

    # in other numbers

    def at(self, precision: GenerationPrecision) -> Generator:
        """This generator, making its images in such numbers. In ``bfloat16`` and ``float16`` with a copy of the weights, so a change of
        them later does not show.

        Raises:
            InputError: no such precision, or a network that does not run in it.
        """
        if precision not in get_args(GenerationPrecision):
            raise InputError("No such precision", repr(precision), f"one of {', '.join(get_args(GenerationPrecision))}")
        full = self.full
        for known in (self, full):
            if precision == known.precision:
                return known
        made = copy.copy(full) if precision == "tf32" else copy.deepcopy(full)
        made._most_rows, made.precision = None, precision
        begun_in = torch.float32 if precision == "tf32" else made.lowered(getattr(torch, precision))
        made.begun_in, made._full = begun_in, (full,)
        if precision == "tf32":
            return made
        try:  # a network of somebody else's may hold numbers of its own
            with made.scored_pass():
                made(sample_latents(made, [0], 0))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            found, needed = str(error).splitlines()[0], "--precision float32 or tf32"
            raise InputError(f"The network does not run in {precision}", found, needed) from error
        return made

    @property
    def full(self) -> Generator:
        """The generator in float32 that this one was made of, or itself."""
        return self._full[0] if self._full else self

    @property
    def key(self) -> dict[str, str]:
        """What the numbers of a sample depend on, for names of what is kept: SHA-256 of the checkpoint, and a precision but float32."""
        made_in = {} if self.precision == "float32" else {"precision": self.precision}
        return {"checkpoint": self.identity().sha256, **made_in}

    def scored_pass(self) -> AbstractContextManager[None]:
        """`passes.scored_pass` in the generator's precision."""
        return scored_pass(tf32=self.precision == "tf32")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for full in self._full:  # both are moved together
            full._apply(fn, recurse)
        return super()._apply(fn, recurse)

    # what everyone else uses: any number of samples, in micro-batches of one shape, without gradients and in one precision

    def images(self, latents: Latents | Tensor, edits: AnyEdits = None, progress: Progress = silent) -> Tensor:
        """Images of all samples at once, on the CPU: float32 (N, channels, height, width) in [-1, 1]. Arguments as of `image_batches`."""
        latents = self.checked(latents)
        images = torch.empty(len(latents), *self.image_shape)
        for rows, made in self.image_batches(latents, edits, progress):
            images[rows] = on_host(made)
        return images

    def image_batches(
        self, latents: Latents | Tensor, edits: AnyEdits = None, progress: Progress = silent
    ) -> Iterator[tuple[slice, Tensor]]:
        """Rows of the latents and their images, float32 (rows, channels, height, width) in [-1, 1] on the generator's device: a micro-batch
        at a time, or half of one (and so on) where the device has no memory for it.

        Args:
            latents: N samples, or a bare z tensor (N, D) where there are no labels.
            edits: edit to apply after each layer; for edits that differ from sample to sample a function of rows (B,) int64 of the
                latents, one of which may stand there several times.
            progress: called with the number of samples that are done with.

        Raises:
            LatentsError: the latents do not fit the generator.
        """
        for rows, images in self._passes(latents, edits, progress, self.layers[-1].index, lambda batch, of_rows: [self(batch, of_rows)]):
            yield rows, images[: rows.stop - rows.start]

    def activations(
        self, latents: Latents | Tensor, layers: Iterable[LayerLike], edits: AnyEdits = None, progress: Progress = silent
    ) -> Iterator[tuple[slice, int, Tensor]]:
        """Rows of the latents, index of a layer and their activation, (rows, units, height, width) on the generator's device: for each
        micro-batch one layer after the other in order of synthesis, in one pass that ends at the last of them. A layer is let go of before
        the next is made. Where the device has no memory for the next, what is left of the pass comes for each half of the micro-batch:
        every layer has each row once, in order. No samples give each layer once, of no rows. Other arguments as of `image_batches`; an
        activation is read after its own layer's edit.

        Raises:
            LatentsError: the latents do not fit the generator.
            LayerError: no such layer, or none at all.
        """
        indices = self.layer_indices(layers)
        if not len(latents):
            for layer in (self.layers[index] for index in indices):
                yield slice(0, 0), layer.index, torch.empty(0, layer.units, layer.height, layer.width, device=self.device)

        def steps(batch: Latents, of_rows: Edits | None) -> Iterator[State]:
            return self.states(self.start(batch), indices[-1], of_rows)

        for rows, state in self._passes(latents, edits, progress, indices[-1], steps):
            if state.layer in indices:
                yield rows, state.layer, state.activation[: rows.stop - rows.start]

    def _passes(
        self,
        latents: Latents | Tensor,
        edits: AnyEdits,
        progress: Progress,
        upto: int,
        steps: Callable[[Latents, Edits | None], Iterable[T]],
    ) -> Iterator[tuple[slice, T]]:
        """Rows of the latents and each step of a pass over them up to a layer, which may be padded beyond these rows."""
        for rows, batch in micro_batches(self.checked(latents), self.micro_batch):
            places = padded_rows(rows, len(batch))

            def run(part: slice, batch: Latents = batch, places: np.ndarray = places) -> Iterable[T]:
                return steps(batch[part], edits(places[part]) if callable(edits) else edits)

            for part, step in scored_steps(halves(run, len(batch), self.most_rows, upto), tf32=self.precision == "tf32"):
                start, stop = rows.start + part.start, min(rows.start + part.stop, rows.stop)
                if start < stop:  # not padding alone
                    yield slice(start, stop), step
                del step
            progress(rows.stop - rows.start)

    @property
    def widest(self) -> int:
        """Neurons of the widest layer, or values of the image where these are more."""
        return max(math.prod(self.image_shape), *(layer.neurons for layer in self.layers))

    @property
    def micro_batch(self) -> int:
        """Samples in one pass: what `passes.micro_batch_on` chooses for the device, unless another was set, as by a set that was begun on
        another device. Floats at another one are the same to rounding."""
        return self._micro_batch or micro_batch_on(self.device, self.widest)

    @micro_batch.setter
    def micro_batch(self, samples: int) -> None:
        if samples < 1:
            raise InputError("A pass needs samples", f"a micro-batch of {samples}", "at least 1")
        self._micro_batch = samples

    @property
    def most_rows(self) -> MostRows:
        """Rows that the device has memory for in a pass, by the layer it ends at; asked anew where the generator was moved to another."""
        if self._most_rows is None or self._most_rows.device != self.device:
            self._most_rows = MostRows(self.device, [layer.neurons for layer in self.layers])
        return self._most_rows

    # one batch, as it comes

    def forward(self, latents: Latents | Tensor, edits: Edits | None = None) -> Tensor:
        """Images (N, channels, height, width), float32 in [-1, 1], of latents or a bare z (N, D), with these edits on the way."""
        return self.resume(self.start(latents), edits)

    def start(self, latents: Latents | Tensor) -> State:
        """The state before the first layer, with the latents, or a bare z (N, D), checked and brought to the generator's device."""
        return self.begun(self.full.begin(self.checked(latents).to(self.device)))

    def begun(self, state: State) -> State:
        """A state before the first layer, or after it, that was made in float32, in the generator's own numbers."""
        return state if self.begun_in == torch.float32 else state.to(self.begun_in)

    def states(self, state: State, upto: int | None = None, edits: Edits | None = None) -> Iterator[State]:
        """The states after each further layer up to ``upto`` (default: the last), each already edited."""
        last = self.layers[-1].index if upto is None else upto
        while state.layer < last:
            state = self.advance(state)
            if edits and state.layer in edits:
                state = state.edited(edits[state.layer](state.activation))
            yield state

    def run(self, state: State, upto: int, edits: Edits | None = None) -> State:
        """The state after layer ``upto``."""
        return deque(self.states(state, upto, edits), maxlen=1).pop() if state.layer < upto else state

    def parts(self, state: State, upto: int) -> Iterator[tuple[int, slice, Tensor]]:
        """The activations of a state and of the layers after it up to ``upto``, for readers that need none of them as a whole: the last
        comes by position where the family has a way. Gives the layer, which of the positions ``y · width + x`` these are, and the
        activation there, (N, positions, units), which is overwritten when the next is made."""
        positions = self.by_position(upto) if upto > state.layer else None
        last = state
        for last in chain([state], self.states(state, upto if positions is None else upto - 1)):
            yield last.layer, slice(None), last.activation.flatten(2).transpose(1, 2)
        for position, activation in enumerate(() if positions is None else positions(last)):
            yield upto, slice(position, position + 1), activation[:, None]

    def resume(self, state: State, edits: Edits | None = None) -> Tensor:
        """Images from any state, clamped to [-1, 1]."""
        return at_least_float32(self.finish(self.run(state, self.layers[-1].index, edits))).clamp(-1.0, 1.0)

    def identity(self) -> Origin:
        """The origin, or name and fingerprint of a generator made in memory."""
        return self.origin or Origin(f"{self.stored_as} in memory", self.full.fingerprint())

    def layer(self, which: LayerLike) -> Layer:
        """The layer of that index, name or resolution. Raises `LayerError` if there is none."""
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
        assert latents.labels is not None, "latents of a conditional generator were checked to have labels"
        return one_hot(latents.labels, self.label_size)

    def checked(self, latents: Latents | Tensor) -> Latents:
        """The latents, or a bare z (N, D) as such. Raises `LatentsError` for a wrong size or space, and labels missing or of no class."""
        if isinstance(latents, Tensor):
            latents = Latents(np.arange(len(latents)), None, latents)
        if latents.z.ndim != 2 or (latents.space == "z" and latents.z.shape[1] != self.latent_size):
            raise LatentsError("The latents do not fit the generator", f"shape {tuple(latents.z.shape)}", f"(N, {self.latent_size})")
        if latents.space == "w" and self.truncates != "w":
            raise LatentsError(f"{self.family} has no mapping network", "latents in w", "latents in z")
        if self.label_size and latents.labels is None and latents.space == "z":
            raise LatentsError("The generator is conditional", "latents without labels", f"a class in [0, {self.label_size}) each")
        labels = latents.labels
        if labels is not None and labels.dtype == torch.int64 and bool(((labels < 0) | (labels >= self.label_size)).any()):
            raise LatentsError("A label is of no class", f"labels {int(labels.min())} … {int(labels.max())}", f"[0, {self.label_size})")
        return latents


def sample_latents(
    generator: Generator, ids: range | Sequence[int] | np.ndarray, seed: int, *, sampling: Sampling | None = None
) -> Latents:
    """Latents of the given sample ids, z float32 (len(ids), D), of the classes and kind of truncation that the generator needs."""
    return draw_latents(
        ids, seed, generator.latent_size, label_size=generator.label_size, sampling=sampling, truncate_z=generator.truncates == "z"
    )
