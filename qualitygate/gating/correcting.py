"""The correcting half of the gate: the least correction that passes, judged on what the edit did not set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.corrections.method import Method, SampleEdits
from qualitygate.gating.late import LateLayers, Work
from qualitygate.gating.profile import Profile, correction_layers
from qualitygate.gating.scoring import Scorer
from qualitygate.generators.base import Generator, State
from qualitygate.generators.passes import micro_batches, padded_rows
from qualitygate.latents import Latents
from qualitygate.policy.corrections import Correction
from qualitygate.policy.decide import Limits, repaired
from qualitygate.policy.model import Policy
from qualitygate.records.gate import Trial

Waiting = list[tuple[np.ndarray, State]]
"""Rows of a block that need a correction, with the untouched states that their early layers ended in."""


class Correcting:
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
        edited, judged = correction_layers(policy, profile.info.chain)
        self._last = max(*edited, *judged)
        self._judge = Scorer(generator, profile.rates.to(generator.device), (correction.judged_at,), judged)
        self.method: Method = correction.ready(generator, profile, edited)

    def correct(self, latents: Latents, waiting: Waiting, work: Work) -> None:
        """Least correction: from the weakest strength on, each on the samples that none has repaired yet."""
        open_ = np.concatenate([rows for rows, _ in waiting])
        correction = self.method(latents[open_])
        places = np.arange(len(open_))  # of the open samples among those that the correction looked at
        late = LateLayers(self._generator, work.receive)
        for strength in self._limits.strengths:
            done: list[np.ndarray] = []
            for part, batch in micro_batches(latents[open_[places]]):
                rows = open_[places[part]]
                chosen = places[padded_rows(part, len(batch))]
                trial, state = self.attempt(correction, strength, chosen, batch, len(rows))
                passed, _ = repaired(self._limits, trial)
                work.write(rows, self._outcome(strength, trial))
                late.add(rows[passed], state, np.flatnonzero(passed))
                done.append(passed)
            late.flush()
            places = places[~np.concatenate(done)]
            if not len(places):
                break
        self._measure_moved(waiting, work)

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
        columns, state = self._judge(batch, valid, upto=self._last, edits=correction.edits(strength, places))
        selected = correction.selects[places[:valid]]
        return {name: np.where(selected, columns[name], np.nan) for name in self._limits.judged}, state

    def _outcome(self, strength: float, trial: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The columns that a trial is recorded in."""
        method, count = self._limits.method, len(next(iter(trial.values())))
        judged = {names.trial(method, strength, name): values for name, values in trial.items()}
        return {**judged, names.tried(method, strength): np.ones(count)}

    def _measure_moved(self, waiting: Waiting, work: Work) -> None:
        """How far each corrected image is from the untouched one."""

        def compare(rows: np.ndarray, images: Tensor) -> None:
            kept = torch.from_numpy(np.stack([work.images[int(row)] for row in rows])).to(images)
            work.write(rows, {names.MOVED: (images - kept).abs().mean(dim=(1, 2, 3)).double().cpu().numpy() / 2.0})

        late = LateLayers(self._generator, compare)
        for rows, state in waiting:
            corrected = np.array([row in work.images for row in rows.tolist()], dtype=bool)
            late.add(rows[corrected], state, np.flatnonzero(corrected))
        late.flush()


def trials(limits: Limits, columns: dict[str, np.ndarray], row: int) -> Iterator[Trial]:
    """What was tried on one sample, in order."""
    for strength in limits.strengths:
        tried = columns.get(names.tried(limits.method, strength))
        if tried is not None and tried[row] > 0:
            scores = {name: float(columns[names.trial(limits.method, strength, name)][row]) for name in limits.judged}
            passed = all(scores[name] <= rule.limit for name, rule in limits.judged.items())
            yield Trial(strength=strength, scores=scores, passed=passed)
