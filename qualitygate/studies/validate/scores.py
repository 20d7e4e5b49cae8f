"""Every score of some samples, in every setting that a policy can ask for: what validation holds against the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from qualitygate import names
from qualitygate.errors import PolicyError
from qualitygate.gating.curvature import exact_curvature
from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.gating.scoring import Scorer, add_totals, scored
from qualitygate.gating.validated import setting_of
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.records.evidence import Setting, named

Scored = tuple[Setting, np.ndarray]
"""A setting and its score of each sample, float64 (N,), NaN where there is none."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores of N samples.

    Attributes:
        columns: by name and layer, with the policy's sums and its risk: float64 (N,).
        settings: every setting with its score.
    """

    columns: dict[str, np.ndarray]
    settings: tuple[Scored, ...]

    def has(self, setting: Setting) -> bool:
        return any(one.same_score(setting) for one, _ in self.settings)

    def of(self, setting: Setting) -> np.ndarray:
        """Score of each sample."""
        return next(values for one, values in self.settings if one.same_score(setting))


def score_table(generator: Generator, profile: Profile, latents: Latents, curvature: int, reporter: Reporter) -> ScoreTable:
    """Low-rate counts at every R and layer that the profile knows, single and summed; never-seen neurons; exact CLA of the first samples,
    as many as ``curvature`` says, where the family's presets or the policy look at it; the joined risk."""
    at, layers = profile.info.rates, profile.info.layers
    columns = _counts(generator, profile, latents, reporter)
    walked = tuple(sorted({*generator.presets.curvature, *profile.policy.curvature_layers()}))
    first = min(curvature, len(latents))
    if first and latents.space == "z":
        with reporter.phase("exact CLA", first) as progress:
            exact = exact_curvature(generator, latents[:first], walked, progress=progress)
        rest = len(latents) - first
        columns |= {name: np.pad(values, (0, rest), constant_values=np.nan) for name, values in exact.items()}
    settings = list(count_settings(columns, at, layers, detection_layers(profile.policy, profile.info.chain)))
    settings += [(Setting(score=name), columns[name]) for name in map(names.cla, walked) if name in columns]
    add_totals(columns, at, detection_layers(profile.policy, profile.info.chain))
    try:
        columns[names.RISK] = profile.risk(profile.policy)(columns)
        settings.append((setting_of(profile, profile.policy, names.RISK), columns[names.RISK]))
    except PolicyError:
        pass  # the policy's risk has a part that was not looked at: CLA, where none was asked for
    return ScoreTable(columns, tuple(settings))


def count_settings(
    columns: dict[str, np.ndarray], at: Sequence[float], layers: Sequence[int], detection: tuple[int, ...]
) -> Iterator[Scored]:
    """Counts in every setting: each layer alone, all up to each layer, and the policy's layers.

    Args:
        columns: counts by layer.
        at: values of R.
        layers: that were counted, in order.
        detection: the policy's.
    """
    sets: list[tuple[int, ...]] = [(layer,) for layer in layers]
    sets += [tuple(layers[: stop + 1]) for stop in range(1, len(layers))]
    sets += [detection] if detection not in sets else []
    counts: list[tuple[str, Callable[[int], str]]] = [(names.NEVER_SEEN, names.never_seen)]
    counts += [(names.low_rate(r), partial(names.low_rate, r)) for r in at]
    for score, column in counts:
        for chosen in sets:
            yield named(score, chosen), np.sum([columns[column(layer)] for layer in chosen], axis=0)


def _counts(generator: Generator, profile: Profile, latents: Latents, reporter: Reporter) -> dict[str, np.ndarray]:
    score = Scorer(generator, profile.rates.to(generator.device), profile.info.rates, profile.info.layers)
    parts: list[dict[str, np.ndarray]] = []
    with reporter.phase("scores", len(latents)) as progress:
        for part in scored(score, latents):
            parts.append(part)
            progress(len(part[score.columns[0]]))
    return {name: np.concatenate([part[name] for part in parts]) for name in score.columns}
