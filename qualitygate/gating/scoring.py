"""Scores of a micro-batch as columns, read off one pass over the early layers; the pass can go on from where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qualitygate import names, timing
from qualitygate.generators.base import Edit, EditsOfRows, Generator, State
from qualitygate.generators.passes import Progress, in_halves, micro_batches, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.plugins import resolve
from qualitygate.policy.scores import LOW_RATE, NEVER_SEEN, SCORES, Score
from qualitygate.scores.low_rate import ActivationRates, finite_samples

Reader = Callable[[int, Tensor], Tensor]
"""Scores of each sample, (N, any), from a layer's index and its activation (N, units, height, width)."""


class Scorer:
    """Scores of every layer it is asked about.

    Args:
        generator: the generator.
        rates: activation rates of the untouched generator.
        at: values of R.
        layers: layers to score, in order.
        read: the scores: what counts low-rate neurons unless a policy names more.
        moments: moments of the activations too, the free evidence that screening starts from.

    Attributes:
        columns: names of the columns, in order.
    """

    def __init__(
        self,
        generator: Generator,
        rates: ActivationRates,
        at: Sequence[float],
        layers: Sequence[int],
        read: Sequence[Score] = (NEVER_SEEN, LOW_RATE),
        *,
        moments: bool = False,
    ) -> None:
        self._generator, self._layers = generator, tuple(layers)
        by_reader: dict[str, list[Score]] = {}
        for score in read:
            by_reader.setdefault(score.read_by or "", []).append(score)
        self._readers: list[Reader] = [resolve(path)(rates, at, generator.device, self._layers) for path in by_reader]
        if moments:
            self._readers.append(_moments)
        self.columns = [
            name
            for layer in self._layers
            for name in (
                *(name for together in by_reader.values() for score in together for name in score.columns(at, layer)),
                *(names.activation_moments(layer) if moments else ()),
            )
        ]

    def __call__(
        self, latents: Latents, valid: int, *, upto: int | None = None, edits: Mapping[int, Edit] | EditsOfRows | None = None
    ) -> tuple[dict[str, np.ndarray], State]:
        """Scores of a micro-batch.

        Args:
            latents: the micro-batch, padded.
            valid: how many of its samples count.
            upto: layer to run to; by default the last scored one.
            edits: corrections, the same for all samples or of the given rows of the micro-batch; each layer is read *before* its own edit.

        Returns:
            columns by layer, float64 (valid,), NaN where an activation was not finite; and the state, edited, after the last layer.
        """
        with timing.part(timing.EARLY):
            places = np.arange(len(latents))
            of_rows = edits if callable(edits) else lambda _: edits or {}
            parts = in_halves(lambda rows: self._pass(latents[rows], upto, of_rows(places[rows])), len(latents))
            table = torch.cat([table for table, _ in parts])[:valid].cpu().numpy()  # one transfer
        state = parts[0][1] if len(parts) == 1 else State.concatenated([state for _, state in parts])
        return dict(zip(self.columns, table.T, strict=True)), state

    def over(self, latents: Latents) -> Iterator[dict[str, np.ndarray]]:
        """Columns (n,) of one micro-batch of the latents after the other."""
        for rows, batch in micro_batches(latents):
            with scored_pass():
                columns, _ = self(batch, rows.stop - rows.start)
            yield columns

    def _pass(self, latents: Latents, upto: int | None, edits: Mapping[int, Edit]) -> tuple[Tensor, State]:
        tables: list[Tensor] = []

        def read(layer: int, edit: Edit | None, activation: Tensor) -> Tensor:
            if layer in self._layers:
                table = torch.cat([reader(layer, activation).double() for reader in self._readers], dim=1)
                tables.append(table.masked_fill(~finite_samples(activation)[:, None], torch.nan))
            return activation if edit is None else edit(activation)

        last = max(*self._layers, upto or 0)
        watch = {layer: partial(read, layer, edits.get(layer)) for layer in {*self._layers, *edits} if layer <= last}
        state = self._generator.run(self._generator.start(latents), last, watch)
        return torch.cat(tables, dim=1), state


def _moments(layer: int, activation: Tensor) -> Tensor:
    """`names.activation_moments` of each sample, (N, 3)."""
    mean = activation.clamp(min=0).mean(dim=(1, 2, 3))
    square = activation.square().mean(dim=(1, 2, 3))
    active = (activation > 0).float().mean(dim=(1, 2, 3))
    return torch.stack([mean, square, active], dim=1)


def add_totals(columns: dict[str, np.ndarray], at: Sequence[float], layers: Sequence[int]) -> None:
    """Adds the sums (N,) over the detection layers, of every score that is known at all of them: the paper's sample score at each R among
    them."""
    for score in SCORES.values():
        for rate in (at if score.by_rate else (None,)) if score.by_layer and score.total else ():
            parts = [score.column(rate, layer) for layer in layers]
            if all(part in columns for part in parts):
                columns[score.column(rate)] = np.sum([columns[part] for part in parts], axis=0)


def class_rates(
    generator: Generator, latents: Latents, classes: np.ndarray, layers: Sequence[int], progress: Progress = silent
) -> dict[int, ActivationRates]:
    """Activation rates of each class that has samples, in one pass: in a generator of several modes, a neuron that is rare over all may be
    a mode's own. A policy cannot ask for counts against them: the class of an unconditional sample is known only once its image is made.

    Args:
        generator: the generator.
        latents: N samples.
        classes: int64 (N,), from 0.
        layers: layers to estimate.
        progress: called with samples done.
    """
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(classes)).float().to(generator.device)
    counts: dict[int, Tensor] = {}
    for rows, layer, activation in generator.activations(latents, layers, progress=progress):
        found = torch.einsum("nk,nuyx->kuyx", one_hot[rows], (activation > 0).float()).round().long().cpu()
        counts[layer] = counts[layer] + found if layer in counts else found
    seed, sampling = latents.seed or 0, latents.sampling
    sizes = np.bincount(classes)
    return {
        k: ActivationRates({layer: of_layer[k] for layer, of_layer in counts.items()}, int(size), seed, sampling)
        for k, size in enumerate(sizes)
        if size
    }


def class_counts(
    generator: Generator,
    latents: Latents,
    classes: np.ndarray,
    rates: dict[int, ActivationRates],
    at: Sequence[float],
    layers: Sequence[int],
) -> dict[str, np.ndarray]:
    """Low-rate counts of each sample against the rates of its class, as columns by layer: float64 (N,), NaN where a class has no rates."""
    columns: dict[str, np.ndarray] = {}
    with scored_pass():
        for k, own in rates.items():
            rows = np.flatnonzero(classes == k)
            score = Scorer(generator, own.to(generator.device), at, layers)
            for part, batch in micro_batches(latents[rows]):
                for name, values in score(batch, part.stop - part.start)[0].items():
                    columns.setdefault(name, np.full(len(classes), np.nan))[rows[part]] = values
    return columns
