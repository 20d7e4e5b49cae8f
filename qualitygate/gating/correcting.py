"""The second half of the gate: the remaining layers of samples that pass, and of others the least correction that passes, judged on what
the edit did not set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from qualitygate import names, timing
from qualitygate.corrections.method import Method, SampleEdits
from qualitygate.gating.profile import Profile, correction_layers
from qualitygate.gating.scoring import Scorer
from qualitygate.generators.base import Generator, State
from qualitygate.generators.passes import in_halves, leaving, on_host, pixels
from qualitygate.latents import Latents
from qualitygate.policy.corrections import Correction
from qualitygate.policy.decide import Limits, repaired
from qualitygate.policy.model import Policy
from qualitygate.records.gate import Trial
from qualitygate.scores.low_rate import finite_samples


class LateLayers:
    """Collects states and finishes them in micro-batches, the last one smaller: survivors are regrouped, so that the remaining
    layers run on full batches whatever was rejected in between. The sink receives keys (N,) and their images (N, channels, height, width),
    float32 in [-1, 1], on the generator's device."""

    def __init__(self, generator: Generator, sink: Callable[[np.ndarray, Tensor], None]) -> None:
        self._generator, self._sink = generator, sink
        self._waiting: list[tuple[np.ndarray, State]] = []

    def add(self, keys: np.ndarray, state: State, rows: np.ndarray) -> None:
        """Finish the given rows (n,) of a state, under these keys (n,)."""
        if not len(keys):
            return
        if len(rows) < len(state.activation):
            state = state.rows(torch.from_numpy(rows).to(state.activation.device))
        self._waiting.append((keys, state))
        if sum(len(waiting) for waiting, _ in self._waiting) >= (size := self._generator.micro_batch):
            self.flush(size)

    def flush(self, at_least: int = 1) -> None:
        """Finish what is waiting, as long as a batch of ``at_least`` can be made."""
        if not self._waiting:
            return
        keys = np.concatenate([keys for keys, _ in self._waiting])
        states = [state for _, state in self._waiting]
        state, done = states[0] if len(states) == 1 else State.concatenated(states), 0
        while len(keys) - done >= at_least:
            batch = keys[done : done + self._generator.micro_batch]

            def finish(rows: slice, first: int = done) -> Tensor:
                return self._generator.resume(_rows(state, first + rows.start, first + rows.stop))

            with timing.part(timing.LATE):
                parts = in_halves(finish, len(batch), self._generator.most_rows, self._generator.layers[-1].index)
                self._sink(batch, parts[0] if len(parts) == 1 else torch.cat(parts))
            done += len(batch)
        self._waiting = [(keys[done:], _rows(state, done, len(keys)))] if done < len(keys) else []


def _rows(state: State, start: int, stop: int) -> State:
    return state if stop - start == len(state.activation) else state.rows(slice(start, stop))


class BlockBuffer:
    """What a block of so many samples collects while it is gated: every score and every outcome of a correction as columns, float64
    (count,), and finished images by row, float32 (channels, height, width) or `pixels`, which leave the device beside the passes that
    follow: once it has `settled` they are there."""

    def __init__(self, count: int, *, as_pixels: bool = False) -> None:
        self._count, self._as_pixels = count, as_pixels
        self._leaving: list[tuple[list[int], Callable[[], Tensor]]] = []
        self.columns = {name: np.full(count, np.nan) for name in (names.IMAGE_FINITE, names.MOVED)}
        self.images: dict[int, np.ndarray] = {}

    def write(self, rows: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Put values of some rows (n,) into columns (N,); other rows of a new column are empty."""
        for name, values in columns.items():
            empty = 0.0 if names.is_tried(name) else np.nan
            self.columns.setdefault(name, np.full(self._count, empty))[rows] = values

    def receive(self, rows: np.ndarray, images: Tensor) -> None:
        """Keep finished images (n, channels, height, width), and whether they are finite."""
        self.columns[names.IMAGE_FINITE][rows] = on_host(finite_samples(images)).numpy()
        self._leaving.append((rows.tolist(), leaving(pixels(images) if self._as_pixels else images)))

    def settle(self) -> None:
        """Wait for the images that are on their way."""
        for rows, images in self._leaving:
            self.images.update(zip(rows, images().numpy(), strict=True))
        self._leaving = []


FailedRows = list[tuple[np.ndarray, State]]
"""Rows of a block that need a correction, with the untouched states that their early layers ended in."""


class Corrector:
    """A policy's correction, ready to be tried."""

    def __init__(self, generator: Generator, profile: Profile, policy: Policy, correction: Correction, limits: Limits) -> None:
        self._generator, self._limits = generator, limits
        edited, rechecked = correction_layers(policy, profile.info.chain)
        self._last = max(*edited, *rechecked)
        self._score = Scorer(generator, profile.rates.to(generator.device), (correction.judged_at,), rechecked)
        self.method: Method = correction.ready(generator, profile, edited)

    def correct(self, latents: Latents, failed: FailedRows, buffer: BlockBuffer) -> None:
        """Least correction: from the weakest strength on, each on the samples that none has repaired yet."""
        open_ = np.concatenate([rows for rows, _ in failed])
        correction = self.method(latents[open_])
        places = np.arange(len(open_))  # of the open samples among those that the correction looked at
        corrected: dict[int, Tensor] = {}  # on the device

        def receive(rows: np.ndarray, images: Tensor) -> None:
            buffer.receive(rows, images)
            corrected.update(zip(rows.tolist(), images, strict=True))

        late = LateLayers(self._generator, receive)
        for strength in self._limits.strengths:
            done: list[np.ndarray] = []
            for part, trial, passed, state in self.attempts(correction, strength, latents[open_[places]], places):
                rows = open_[places[part]]
                outcome = {names.trial(self._limits.method, strength, name): values for name, values in trial.items()}
                buffer.write(rows, {**outcome, names.tried(self._limits.method, strength): np.ones(len(rows))})
                late.add(rows[passed], state, np.flatnonzero(passed))
                done.append(passed)
            late.flush()
            places = places[~np.concatenate(done)]
            if not len(places):
                break
        self._measure_moved(failed, corrected, buffer)

    def attempts(
        self, correction: SampleEdits, strength: float, latents: Latents, places: np.ndarray
    ) -> Iterator[tuple[slice, dict[str, np.ndarray], np.ndarray, State]]:
        """One strength on N samples, whose places among those of the correction are given, int64 (N,). Gives rows of a micro-batch; what
        they are judged on, by column, float64 (rows,), NaN for samples in which there is nothing to edit; whether they pass, bool (rows,);
        and the edited state that the early layers ended in, padded."""
        for rows, columns, state in self._score.over(latents, upto=self._last, edits=lambda few: correction.edits(strength, places[few])):
            selected = correction.selects[places[rows]]
            trial = {name: np.where(selected, columns[name], np.nan) for name in self._limits.recheck_limits}
            yield rows, trial, repaired(self._limits, trial)[0], state

    def _measure_moved(self, failed: FailedRows, corrected: dict[int, Tensor], buffer: BlockBuffer) -> None:
        """How far each corrected image is from the untouched one."""

        def compare(rows: np.ndarray, images: Tensor) -> None:
            kept = torch.stack([corrected[row] for row in rows.tolist()])
            buffer.write(rows, {names.MOVED: on_host((images - kept).abs().mean(dim=(1, 2, 3)).double()).numpy() / 2.0})

        late = LateLayers(self._generator, compare)
        for rows, state in failed:
            there = np.array([row in corrected for row in rows.tolist()], dtype=bool)
            late.add(rows[there], state, np.flatnonzero(there))
        late.flush()


def trials(limits: Limits, columns: dict[str, np.ndarray], row: int) -> Iterator[Trial]:
    """What was tried on one sample, in order, from columns (N,)."""
    for strength in limits.strengths:
        tried = columns.get(names.tried(limits.method, strength))
        if tried is not None and tried[row] > 0:
            scores = {name: float(columns[names.trial(limits.method, strength, name)][row]) for name in limits.recheck_limits}
            passed = all(scores[name] <= rule.limit for name, rule in limits.recheck_limits.items())
            yield Trial(strength=strength, scores=scores, passed=passed)
