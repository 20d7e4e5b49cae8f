"""The samples of a study of corrections: the worst by score, or those that somebody says are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.gating.scoring import Scorer, add_totals
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Progress, micro_batches, scored_pass, silent
from qualitygate.latents import Latents
from qualitygate.policy.model import Policy

WORST_SHARE = 0.1
"""Share of a pool that is never taken for normal."""


@dataclass(frozen=True)
class Samples:
    """The samples of a study.

    Attributes:
        latents: of N samples; the worst first where a score chose them.
        chosen: who chose them, in words.
        normal: samples to hold them against; None where there are none.
        who_is_normal: who chose those, in words.
        score: name of the score that chose; None if none did.
        scores: its values, float64 (N,).
    """

    latents: Latents
    chosen: str
    normal: Latents | None = None
    who_is_normal: str = ""
    score: str | None = None
    scores: np.ndarray | None = None


def worst_samples(
    generator: Generator, profile: Profile, policy: Policy, count: int, pool: int, seed: int, progress: Progress = silent
) -> Samples:
    """The samples with the most active low-rate neurons at the policy's headline R, over its detection layers.

    Normal samples are those of the pool outside its worst tenth (and outside the chosen ones), as they come.

    Args:
        generator: the generator.
        profile: what calibration learned of it.
        policy: says R and layers.
        count: how many.
        pool: of how many, ids 0 … pool − 1.
        seed: of those; not the calibration's.
        progress: called with samples done.

    Raises:
        InputError: more than there are, or the calibration's seed.
    """
    if not 1 <= count <= pool:
        raise InputError("Not so many samples can be chosen", f"{count} of {pool}", "at least 1, at most the pool")
    profile.check_seed(seed)
    score = names.low_rate(policy.headline_rate)
    latents = sample_latents(generator, range(pool), seed, sampling=profile.info.sampling)
    scores = _scored(generator, profile, policy, latents, progress)
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    worst, rest = order[:count], np.sort(order[max(count, round(WORST_SHARE * pool)) :])
    return Samples(
        latents[worst],
        f"the {count:,} worst of {pool:,} samples by {score}",
        latents[rest] if len(rest) else None,
        f"{len(rest):,} samples outside the worst {pool - len(rest):,} of {pool:,} by {score}",
        score,
        scores[worst],
    )


def said_samples(generator: Generator, profile: Profile, ids: np.ndarray, artifact: np.ndarray, seed: int, who: str) -> Samples:
    """Artifacts and normal samples as somebody, or a rule, tells them apart.

    Args:
        generator: the generator.
        profile: what calibration learned of it.
        ids: int64 (N,).
        artifact: bool (N,).
        seed: of the samples.
        who: says so, in words.

    Raises:
        InputError: nothing is an artifact.
    """
    if not artifact.any():
        raise InputError("There is nothing to correct", f"no artifact according to {who}", "at least one")

    def of(rows: np.ndarray) -> Latents:
        return sample_latents(generator, ids[rows].tolist(), seed, sampling=profile.info.sampling)

    normal = of(~artifact) if not artifact.all() else None
    wrong, right = int(artifact.sum()), int((~artifact).sum())
    words = f"{wrong:,} artifacts according to {who}", f"{right:,} normal samples according to {who}"
    return Samples(of(artifact), words[0], normal, words[1])


def _scored(generator: Generator, profile: Profile, policy: Policy, latents: Latents, progress: Progress) -> np.ndarray:
    at, layers = (policy.headline_rate,), detection_layers(policy, profile.info.chain)
    score = Scorer(generator, profile.rates.to(generator.device), at, layers)
    parts = []
    with scored_pass():
        for rows, batch in micro_batches(latents):
            columns = score(batch, rows.stop - rows.start)[0]
            add_totals(columns, at, layers)
            parts.append(columns[names.low_rate(*at)])
            progress(rows.stop - rows.start)
    return np.concatenate(parts)
