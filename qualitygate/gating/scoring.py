"""Scores of a micro-batch as columns, read off one pass over the early layers; the pass can go on from where it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from qualitygate import names, timing
from qualitygate.generators.base import Edit, Generator, State, read_layers
from qualitygate.generators.passes import Progress, in_halves, micro_batches, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.scores.low_rate import ActivationRates, LowRateCounter, finite_samples


class Scorer:
    """Low-rate counts and never-seen neurons of every layer it is asked about.

    Args:
        generator: the generator.
        rates: activation rates of the untouched generator.
        at: values of R.
        layers: layers to score, in order.
        moments: moments of the activations too, the free evidence that screening starts from.
    """

    def __init__(
        self, generator: Generator, rates: ActivationRates, at: Sequence[float], layers: Sequence[int], *, moments: bool = False
    ) -> None:
        self._generator = generator
        self._layers = tuple(layers)
        self._at = tuple(at)
        self._moments = moments
        self._count = LowRateCounter(rates, at, generator.device, self._layers)

    def __call__(
        self, latents: Latents, valid: int, *, upto: int | None = None, edits: Mapping[int, Edit] | None = None
    ) -> tuple[dict[str, np.ndarray], State]:
        """Scores of a micro-batch.

        Args:
            latents: the micro-batch, padded.
            valid: how many of its samples count.
            upto: layer to run to; by default the last scored one.
            edits: corrections; each layer is counted *before* its own edit.

        Returns:
            columns by layer, float64 (valid,), NaN where an activation was not finite; and the state, edited, after the last layer.
        """
        with timing.part(timing.EARLY):
            parts = in_halves(lambda rows: self._pass(latents[rows], upto, edits or {}), len(latents))
            table = torch.cat([table for table, _ in parts])[:valid].cpu().numpy()  # one transfer
        state = parts[0][1] if len(parts) == 1 else State.concatenated([state for _, state in parts])
        return dict(zip(self.columns, table.T, strict=True)), state

    def _pass(self, latents: Latents, upto: int | None, edits: Mapping[int, Edit]) -> tuple[Tensor, State]:
        counts: list[Tensor] = []

        def counted(layer: int, edit: Edit | None, activation: Tensor) -> Tensor:
            if layer in self._layers:
                counts.append(self._scores(layer, activation))
            return activation if edit is None else edit(activation)

        last = max(*self._layers, upto or 0)
        watch = {layer: partial(counted, layer, edits.get(layer)) for layer in {*self._layers, *edits} if layer <= last}
        state = self._generator.run(self._generator.start(latents), last, watch)
        return torch.cat(counts, dim=1), state

    def _scores(self, layer: int, activation: Tensor) -> Tensor:
        scores = self._count(layer, activation).double()
        if self._moments:
            scores = torch.cat([scores, _moments(activation)], dim=1)
        return scores.masked_fill(~finite_samples(activation)[:, None], torch.nan)

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return [
            name
            for layer in self._layers
            for name in (
                names.never_seen(layer),
                *(names.low_rate(r, layer) for r in self._at),
                *(names.activation_moments(layer) if self._moments else ()),
            )
        ]


def _moments(activation: Tensor) -> Tensor:
    """`names.activation_moments` of each sample, float64 (N, 3)."""
    mean = activation.clamp(min=0).mean(dim=(1, 2, 3))
    square = activation.square().mean(dim=(1, 2, 3))
    active = (activation > 0).float().mean(dim=(1, 2, 3))
    return torch.stack([mean, square, active], dim=1).double()


def scored(score: Scorer, latents: Latents) -> Iterator[dict[str, np.ndarray]]:
    """Columns of one micro-batch of the latents after the other."""
    for rows, batch in micro_batches(latents):
        with scored_pass():
            columns, _ = score(batch, rows.stop - rows.start)
        yield columns


def add_totals(columns: dict[str, np.ndarray], at: Sequence[float], layers: Sequence[int]) -> None:
    """Adds the sums over the detection layers: the paper's sample score at each R, and the never-seen neurons."""
    for r in at:
        columns[names.low_rate(r)] = np.sum([columns[names.low_rate(r, layer)] for layer in layers], axis=0)
    columns[names.never_seen()] = np.sum([columns[names.never_seen(layer)] for layer in layers], axis=0)


def class_rates(
    generator: Generator, latents: Latents, classes: np.ndarray, layers: Sequence[int], progress: Progress = silent
) -> dict[int, ActivationRates]:
    """Activation rates of each class that has samples, in one pass.

    Args:
        generator: the generator.
        latents: N samples.
        classes: int64 (N,), from 0.
        layers: layers to estimate.
        progress: called with samples done.
    """
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(classes)).float().to(generator.device)
    counts: dict[int, Tensor] = {}
    with scored_pass():
        for rows, batch in micro_batches(latents):
            valid = rows.stop - rows.start
            for layer, activation in read_layers(generator, batch, layers):
                active = (activation[:valid] > 0).float()
                found = torch.einsum("nk,nuyx->kuyx", one_hot[rows], active).round().long().cpu()
                counts[layer] = counts[layer] + found if layer in counts else found
            progress(valid)
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
