"""The correcting half of the gate: the least correction that passes, judged on what the edit did not set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.corrections.method import Method, SampleEdits
from qualitygate.gating.late import BlockBuffer, LateLayers
from qualitygate.gating.profile import Profile, correction_layers
from qualitygate.gating.scoring import Scorer
from qualitygate.generators.base import Generator, State
from qualitygate.latents import Latents
from qualitygate.policy.corrections import Correction
from qualitygate.policy.decide import Limits, repaired
from qualitygate.policy.model import Policy
from qualitygate.records.gate import Trial

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
        late = LateLayers(self._generator, buffer.receive)
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
        self._measure_moved(failed, buffer)

    def attempts(
        self, correction: SampleEdits, strength: float, latents: Latents, places: np.ndarray
    ) -> Iterator[tuple[slice, dict[str, np.ndarray], np.ndarray, State]]:
        """One strength on N samples, whose places among those of the correction are given, int64 (N,).

        Yields:
            rows of a micro-batch; what they are judged on, by column, float64 (rows,), NaN for samples in which there is nothing to edit;
            whether they pass, bool (rows,); and the edited state that the early layers ended in, padded.
        """
        for rows, columns, state in self._score.over(latents, upto=self._last, edits=lambda few: correction.edits(strength, places[few])):
            selected = correction.selects[places[rows]]
            trial = {name: np.where(selected, columns[name], np.nan) for name in self._limits.recheck_limits}
            yield rows, trial, repaired(self._limits, trial)[0], state

    def _measure_moved(self, failed: FailedRows, buffer: BlockBuffer) -> None:
        """How far each corrected image is from the untouched one."""

        def compare(rows: np.ndarray, images: Tensor) -> None:
            kept = torch.from_numpy(np.stack([buffer.images[int(row)] for row in rows])).to(images)
            buffer.write(rows, {names.MOVED: (images - kept).abs().mean(dim=(1, 2, 3)).double().cpu().numpy() / 2.0})

        late = LateLayers(self._generator, compare)
        for rows, state in failed:
            corrected = np.array([row in buffer.images for row in rows.tolist()], dtype=bool)
            late.add(rows[corrected], state, np.flatnonzero(corrected))
        late.flush()


def trials(limits: Limits, columns: dict[str, np.ndarray], row: int) -> Iterator[Trial]:
    """What was tried on one sample, in order, from columns (N,)."""
    for strength in limits.strengths:
        tried = columns.get(names.tried(limits.method, strength))
        if tried is not None and tried[row] > 0:
            scores = {name: float(columns[names.trial(limits.method, strength, name)][row]) for name in limits.recheck_limits}
            passed = all(scores[name] <= rule.limit for name, rule in limits.recheck_limits.items())
            yield Trial(strength=strength, scores=scores, passed=passed)
