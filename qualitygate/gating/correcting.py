"""The correcting half of the gate: the least correction that passes, judged on what the edit did not set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.corrections.ablation import low_rate_ablation
from qualitygate.gating.late import LateLayers
from qualitygate.gating.profile import Profile, correction_layers
from qualitygate.gating.scoring import Scorer
from qualitygate.gating.work import Work
from qualitygate.generators.base import Edit, Generator, State
from qualitygate.generators.execution import micro_batches
from qualitygate.latents import Latents
from qualitygate.policy.decide import Limits, repaired
from qualitygate.policy.model import Correction, Policy
from qualitygate.records import Trial

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

    def __init__(
        self, generator: Generator, profile: Profile, policy: Policy, correction: Correction, limits: Limits
    ) -> None:
        self._generator, self._limits = generator, limits
        edited, judged = correction_layers(policy, profile.info.chain)
        self._last = max(*edited, *judged)
        rates = profile.rates.to(generator.device)
        self._judge = Scorer(generator, rates, (correction.judged_at,), judged)
        self.edits: dict[float, dict[int, Edit]] = {
            at: low_rate_ablation(rates, edited, at, generator.device) for at in limits.strengths
        }

    def correct(self, latents: Latents, waiting: Waiting, work: Work) -> None:
        """Least correction: every strength in rising order on the samples that none has repaired yet."""
        open_ = np.concatenate([rows for rows, _ in waiting])
        late = LateLayers(self._generator, work.receive)
        for strength, edits in self.edits.items():
            done: list[np.ndarray] = []
            for part, batch in micro_batches(latents[open_]):
                rows = open_[part]
                columns, state = self._judge(batch, len(rows), upto=self._last, edits=edits)
                passed, _ = repaired(self._limits, columns)
                trial = {names.trial(strength, name): columns[name] for name in self._limits.judged}
                work.write(rows, {**trial, names.tried(strength): np.ones(len(rows))})
                late.add(rows[passed], state, np.flatnonzero(passed))
                done.append(passed)
            late.flush()
            open_ = open_[~np.concatenate(done)]
            if not len(open_):
                break
        self._measure_moved(waiting, work)

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
        tried = columns.get(names.tried(strength))
        if tried is not None and tried[row] > 0:
            scores = {name: float(columns[names.trial(strength, name)][row]) for name in limits.judged}
            passed = all(scores[name] <= rule.limit for name, rule in limits.judged.items())
            yield Trial(strength=strength, scores=scores, passed=passed)
