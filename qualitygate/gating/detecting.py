"""The detecting half of the gate: every micro-batch through the early layers once, and all scores that its verdict needs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qualitygate import names
from qualitygate.errors import ProfileError
from qualitygate.gating.curvature import Columns, Screening, exact_curvature, fitted_screen, free_evidence, screening_columns
from qualitygate.gating.profile import Profile, detection_layers, scored_layers
from qualitygate.gating.scoring import Scorer, add_totals
from qualitygate.generators.base import Generator, State
from qualitygate.generators.passes import micro_batches
from qualitygate.latents import Latents
from qualitygate.policy.decide import Limits, first_look
from qualitygate.policy.model import Policy
from qualitygate.policy.risk import Risk

Seen = tuple[slice, dict[str, np.ndarray], State]
"""Rows of a micro-batch, their columns, and the state that their early layers ended in."""


class Detecting:
    """A policy's detection, ready to look at samples.

    Args:
        generator: the generator.
        profile: what calibration learned.
        policy: what decides.
        limits: its limits.
        risk: its joined risk.

    Attributes:
        layers: layers that are summed over.
    """

    def __init__(self, generator: Generator, profile: Profile, policy: Policy, limits: Limits, risk: Risk) -> None:
        self._generator, self._policy, self._limits = generator, policy, limits
        self.layers = detection_layers(policy, profile.info.chain)
        self._scored = scored_layers(policy, profile.info.chain)
        self._curvature, self._precision = policy.curvature_layers(), policy.detection.curvature_precision
        rates = profile.rates.to(generator.device)
        self._score = Scorer(generator, rates, policy.detection.rates, self._scored, moments=policy.screens)
        self._risk = risk
        self._screening = self._screen(profile) if policy.screens else None

    def __call__(self, latents: Latents) -> Iterator[Seen]:
        """Look at samples, micro-batch after micro-batch. CLA is screened for all of them together."""
        seen: Iterator[Seen] = (self._read(rows, batch) for rows, batch in micro_batches(latents))
        if self._curvature:
            looked = list(seen)
            columns = {name: np.concatenate([part[name] for _, part, _ in looked]) for name in looked[0][1]}
            curvature = self._curvature_of(latents, columns)
            for rows, part, _ in looked:
                part.update({name: values[rows] for name, values in curvature.items()})
            seen = iter(looked)
        for rows, columns, state in seen:
            columns[names.RISK] = self._risk(columns)
            yield rows, columns, state

    def _read(self, rows: slice, batch: Latents) -> Seen:
        columns, state = self._score(batch, rows.stop - rows.start)
        add_totals(columns, self._policy.detection.rates, self.layers)
        return rows, columns, state

    def _curvature_of(self, latents: Latents, columns: Columns) -> dict[str, np.ndarray]:
        if self._screening is None:
            return exact_curvature(self._generator, latents, self._curvature, self._precision)
        return self._screening(latents, columns)

    def _screen(self, profile: Profile) -> Screening:
        def evidence(columns: Columns) -> np.ndarray:
            return free_evidence(columns, self._scored, self._policy.detection.rates)

        needed = screening_columns(self._generator.latent_size, self._curvature, self._scored)
        if missing := [name for name in needed if name not in profile.scores]:
            raise ProfileError(
                "The profile has no pilot to screen CLA by",
                f"no {', '.join(missing[:4])}",
                "a calibration with calibration.curvature_samples and detection.curvature: screened",
                "calibrate again with this policy, or set detection.curvature: exact",
            )
        in_risk = {names.cla_layer(part) for part in self._risk.weights}
        judged_by_risk = any(rule.score == names.RISK for rule in self._limits.rules)
        screens = {
            layer: fitted_screen(
                profile.scores,
                evidence(profile.scores),
                self._generator.latent_size,
                layer,
                [rule.limit for rule in self._limits.rules if rule.score == names.cla(layer)],
                self._policy.detection.curvature_error,
                elsewhere=judged_by_risk and layer in in_risk,
            )
            for layer in self._curvature
        }
        return Screening(self._generator, screens, evidence, self._undecided, self._precision)

    def _undecided(self, low: Columns, high: Columns) -> np.ndarray:
        """Verdicts are monotone in every score: equal at both ends, they are equal in between."""
        at_low, at_high = (first_look(self._limits, {**end, names.RISK: self._risk(end)}).verdict for end in (low, high))
        return at_low != at_high
