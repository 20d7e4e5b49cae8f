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
from qualitygate.generators.passes import micro_batches, padded_rows
from qualitygate.latents import Latents
from qualitygate.policy.corrections import Correction
from qualitygate.policy.decide import Limits, repaired
from qualitygate.policy.model import Policy
from qualitygate.records.gate import Trial

FailedRows = list[tuple[np.ndarray, State]]
"""Rows of a block that need a correction, with the untouched states that their early layers ended in."""


class Corrector:
    """A policy's correction, ready to be tried.

    Args:
        generator: the generator; it is never changed.
        profile: what calibration learned.
        policy: the policy that the correction is of.
        correction: its correction.
        limits: its limits.
    """

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
            for part, batch in micro_batches(latents[open_[places]]):
                rows = open_[places[part]]
                trial, state = self.attempt(correction, strength, places[padded_rows(part, len(batch))], batch, len(rows))
                passed, _ = repaired(self._limits, trial)
                outcome = {names.trial(self._limits.method, strength, name): values for name, values in trial.items()}
                buffer.write(rows, {**outcome, names.tried(self._limits.method, strength): np.ones(len(rows))})
                late.add(rows[passed], state, np.flatnonzero(passed))
                done.append(passed)
            late.flush()
            places = places[~np.concatenate(done)]
            if not len(places):
                break
        self._measure_moved(failed, buffer)

    def attempt(
        self, correction: SampleEdits, strength: float, places: np.ndarray, batch: Latents, valid: int
    ) -> tuple[dict[str, np.ndarray], State]:
        """One strength on a micro-batch.

        Args:
            correction: of some samples.
            strength: of the correction.
            places: of the micro-batch's samples among those.
            batch: the micro-batch, padded.
            valid: how many of its samples count.

        Returns:
            what they are judged on, by column, float64 (valid,), NaN for samples in which there is nothing to edit; and the edited state
            that the early layers ended in.
        """
        columns, state = self._score(batch, valid, upto=self._last, edits=lambda rows: correction.edits(strength, places[rows]))
        selected = correction.selects[places[:valid]]
        return {name: np.where(selected, columns[name], np.nan) for name in self._limits.recheck_limits}, state

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
