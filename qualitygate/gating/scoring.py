"""Scores of a micro-batch as columns, read off one pass over the early layers; the pass can go on from where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qualitygate import names, timing
from qualitygate.generators.base import Edit, EditsOfRows, Generator, State
from qualitygate.generators.passes import Progress, in_halves, micro_batches, on_host, padded_rows, silent
from qualitygate.latents import Latents
from qualitygate.plugins import resolve
from qualitygate.policy.scores import LOW_RATE, NEVER_SEEN, SCORES, Score
from qualitygate.scores.low_rate import ActivationRates, finite_samples


class Scorer:
    """Scores of every layer it is asked about, in order, against the activation rates of the untouched generator.

    Args:
        at: values of R.
        read: the scores: what counts low-rate neurons unless a policy names more.
        moments: moments of the activations too, the free evidence that screening starts from.
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
        paths = list(dict.fromkeys(score.read_by or "" for score in read))
        together = sorted(read, key=lambda score: paths.index(score.read_by or ""))  # what a reader gives stands side by side
        # each gives scores of each sample, (N, any), from a layer's index and its activation (N, units, height, width)
        self._readers: list[Callable[[int, Tensor], Tensor]] = [resolve(path)(rates, at, generator.device, self._layers) for path in paths]
        if moments:
            self._readers.append(_moments)
        self.columns: list[str] = []
        for layer in self._layers:
            self.columns += [name for score in together for name in score.columns(at, layer)]
            self.columns += names.activation_moments(layer) if moments else ()

    def over(
        self, latents: Latents, *, upto: int | None = None, edits: EditsOfRows | None = None
    ) -> Iterator[tuple[slice, dict[str, np.ndarray], State]]:
        """Scores of N samples, one micro-batch after the other, edited or not; each layer is read *before* its own edit.

        Yields:
            rows; columns by layer, float64 (rows,), NaN where an activation was not finite; and the state, edited, after layer ``upto`` (by
            default the last scored one) of the whole micro-batch, padded.
        """
        for rows, batch in micro_batches(latents, self._generator.micro_batch):
            places = padded_rows(rows, len(batch))

            def read(part: slice, batch: Latents = batch, places: np.ndarray = places) -> tuple[Tensor, State]:
                return self._pass(batch[part], upto, edits(places[part]) if edits else {})

            with self._generator.scored_pass(), timing.part(timing.EARLY):
                parts = in_halves(read, len(batch), self._generator.most_rows, max(*self._layers, upto or 0))
                table = on_host(torch.cat([table for table, _ in parts])[: rows.stop - rows.start]).numpy()  # one transfer
            state = parts[0][1] if len(parts) == 1 else State.concatenated([state for _, state in parts])
            yield rows, dict(zip(self.columns, table.T, strict=True)), state

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


def joined(parts: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """dict[str, np.ndarray] (n,) of some samples after those of others, as columns (N,) of all."""
    first, *others = parts
    return {name: np.concatenate([first[name], *(part[name] for part in others)]) for name in first}


def _moments(layer: int, activation: Tensor) -> Tensor:
    """`names.activation_moments` of each sample, (N, 3)."""
    activation = activation.float()
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
    """Activation rates of each class int64 (N,) that has samples, in one pass: in a generator of several modes, a neuron that is rare over
    all may be a mode's own. A policy cannot ask for counts against them: the class of an unconditional sample is known only once its image
    is made."""
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(classes)).float().to(generator.device)
    counts: dict[int, Tensor] = {}
    for rows, layer, activation in generator.activations(latents, layers, progress=progress):
        found = on_host(torch.einsum("nk,nuyx->kuyx", one_hot[rows], (activation > 0).float()).round().long())
        counts[layer] = counts[layer] + found if layer in counts else found
    return {
        k: ActivationRates({layer: of_layer[k] for layer, of_layer in counts.items()}, int(size), latents.seed or 0, latents.sampling)
        for k, size in enumerate(np.bincount(classes))
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
    for k, own in rates.items():
        of_class = np.flatnonzero(classes == k)
        for rows, found, _ in Scorer(generator, own.to(generator.device), at, layers).over(latents[of_class]):
            for name, values in found.items():
                columns.setdefault(name, np.full(len(classes), np.nan))[of_class[rows]] = values
    return columns
