"""The correction study: methods × layers × strengths on one set of samples, in one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from qualitygate import names
from qualitygate.features.compute import extract
from qualitygate.features.extractor import Extractor
from qualitygate.features.images import ImageSet
from qualitygate.gating.profile import Profile
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.metrics.real_set import RealSet
from qualitygate.policy.corrections import Correction
from qualitygate.policy.model import Policy
from qualitygate.studies.corrections.quality import FEATURES, Yardstick, against_truth
from qualitygate.studies.corrections.samples import Samples
from qualitygate.studies.corrections.table import AtStrength, Observer, Outcome, compare, untouched_as_seen

MOST_NORMAL = 1000
"""Normal samples that stand in for real images, at most."""
LEAST, UNTOUCHED, NORMAL = "least", "untouched", "normal samples"
COLUMNS = (
    "passed",
    names.MOVED,
    "diversity",
    "early_passes",
    names.FID,
    names.REALISM,
    names.PRECISION,
    "repaired",
    "mark_gone",
    "damage",
    "harm",
)
"""Numbers of a row of the table, in order; a row has those that are known."""


@dataclass(frozen=True)
class Asked:
    """What is compared, and with what.

    Attributes:
        corrections: by name.
        show: samples on the sheet.
        keep: corrections whose images are all kept, for people to label.
        harm: normal samples that are corrected too, to see how far what needs no correction moves.
        truth: observers of samples whose true repair is known.
    """

    corrections: Mapping[str, Correction]
    show: int = 12
    keep: Sequence[str] = ()
    harm: int = 0
    truth: Mapping[str, Observer] = field(default_factory=dict)


@dataclass(frozen=True)
class CorrectionStudy:
    """What came out.

    Attributes:
        samples: that were corrected.
        outcomes: what each correction does.
        left_out: corrections that cannot be used here, and why.
        yardstick: what images were held against; None without an extractor, or where there was nothing.
        untouched: what observers saw of the samples as they were.
        normal: features of as many normal samples, float32 (N, F); None where there are none.
        harm: mean distance that normal samples move, by correction and strength.
    """

    samples: Samples
    outcomes: tuple[Outcome, ...]
    left_out: Mapping[str, str]
    yardstick: Yardstick | None
    untouched: Mapping[str, np.ndarray]
    normal: np.ndarray | None
    harm: Mapping[tuple[str, float], float]

    def rows(self) -> list[dict[str, Any]]:
        """The table: the samples as they were, normal ones, then every correction at every strength and as least correction.

        A row has ``correction``, ``method``, ``layers``, ``strength`` (null: least correction, or none) and those of `COLUMNS` that
        are known.
        """
        rows = [self._row(UNTOUCHED, None, self._numbers(self.untouched))]
        if self.yardstick is not None and self.normal is not None:
            rows.append(self._row(NORMAL, None, self.yardstick(self.normal)))
        for one in self.outcomes:
            rows += [self._row(one.name, one, self._at(one, at), at.strength) for at in one.at]
            rows.append(self._row(one.name, one, self._least(one)))
        return rows

    def _row(self, name: str, outcome: Outcome | None, numbers: Mapping[str, float], strength: float | None = None) -> dict[str, Any]:
        known = {column: numbers[column] for column in COLUMNS if math.isfinite(numbers.get(column, math.nan))}
        method, layers = (outcome.correction.method, list(outcome.edited)) if outcome else (None, [])
        return {"correction": name, "method": method, "layers": layers, "strength": strength, **known}

    def _at(self, one: Outcome, at: AtStrength) -> dict[str, float]:
        harm = self.harm.get((one.name, at.strength), math.nan)
        return {
            "passed": float(at.passed.mean()),
            names.MOVED: float(at.moved.mean()),
            "diversity": at.diversity,
            "harm": harm,
            **self._numbers(at.seen),
        }

    def _least(self, one: Outcome) -> dict[str, float]:
        seen = {name: one.least(name, untouched) for name, untouched in self.untouched.items()}
        return {"passed": one.passed_share, names.MOVED: one.moved, "early_passes": one.early_passes, **self._numbers(seen)}

    def _numbers(self, seen: Mapping[str, np.ndarray]) -> dict[str, float]:
        of_set = self.yardstick(seen[FEATURES]) if self.yardstick is not None else {}
        return of_set | against_truth(dict(seen))


def study(
    generator: Generator,
    profile: Profile,
    policy: Policy,
    samples: Samples,
    asked: Asked,
    *,
    extractor: Extractor | None = None,
    real: ImageSet | None = None,
    reporter: Reporter | None = None,
) -> CorrectionStudy:
    """Run a study.

    Args:
        generator: the generator; it is not changed.
        profile: what calibration learned of it.
        policy: sets the limits.
        samples: to correct.
        asked: what to compare.
        extractor: features for FID, realism and precision; None: these are not measured.
        real: real images. Without them the normal samples that are not themselves measured stand in.
        reporter: shows progress.

    Raises:
        InputError: too few real images.
    """
    reporter = reporter or Reporter()
    yardstick, normal = _yardstick(generator, samples, extractor, real, reporter)
    observers = dict(asked.truth) | ({FEATURES: yardstick.observe} if yardstick is not None else {})
    outcomes, left_out = compare(
        generator, profile, policy, asked.corrections, samples, show=asked.show, keep=asked.keep, observers=observers, reporter=reporter
    )
    harm: dict[tuple[str, float], float] = {}
    if asked.harm and samples.normal is not None:
        fine = Samples(samples.normal[: asked.harm], samples.who_is_normal)
        used = {one.name: one.correction for one in outcomes}
        on_fine, _ = compare(generator, profile, policy, used, fine, show=0, reporter=reporter)
        harm = {(one.name, at.strength): float(at.moved.mean()) for one in on_fine for at in one.at}
    untouched = untouched_as_seen(generator, samples.latents, observers)
    return CorrectionStudy(samples, tuple(outcomes), left_out, yardstick, untouched, normal, harm)


def document(made: CorrectionStudy) -> dict[str, Any]:
    """The study as plain data; what is not known is absent."""
    yardstick = made.yardstick
    return {
        "samples": len(made.samples.latents),
        "chosen": made.samples.chosen,
        "score": made.samples.score,
        "against": yardstick
        and {
            "name": yardstick.reference.name,
            "images": len(yardstick.reference.features),
            "real": yardstick.real,
            "extractor": yardstick.extractor.key,
        },
        "corrections": [
            {
                "name": one.name,
                "settings": one.correction.model_dump(mode="json"),
                "edited_layers": list(one.edited),
                "judged_layers": list(one.judged),
            }
            for one in made.outcomes
        ],
        "rows": made.rows(),
        "left_out": dict(made.left_out),
    }


def _yardstick(
    generator: Generator, samples: Samples, extractor: Extractor | None, real: ImageSet | None, reporter: Reporter
) -> tuple[Yardstick | None, np.ndarray | None]:
    """What images are held against, and the features of as many normal samples as there are samples."""
    if extractor is None or (real is None and samples.normal is None):
        return None, None
    count = len(samples.latents)
    normal = _features(generator, samples.normal, extractor, count) if samples.normal is not None else None
    measured = normal[:count] if normal is not None and len(normal) >= count else None
    if real is not None:
        with reporter.phase("real images", len(real)) as progress:
            features = extract(extractor, real, progress)
        return Yardstick(extractor, RealSet(real.name, real.sha256, torch.from_numpy(features)), True), measured
    assert normal is not None
    if len(normal) < 2 * count:  # too few to measure some and hold them against others
        measured, rest = None, normal
    else:
        rest = normal[count:]
    reference = RealSet(f"{len(rest):,} of {samples.who_is_normal}", "", torch.from_numpy(rest))
    return Yardstick(extractor, reference, False), measured


def _features(generator: Generator, latents: Latents, extractor: Extractor, measured: int) -> np.ndarray:
    """Of normal samples: those that are measured, and those that others are held against."""

    def observe(_: Latents, images: torch.Tensor, __: torch.Tensor) -> np.ndarray:
        return extract(extractor, images)

    return untouched_as_seen(generator, latents[: measured + MOST_NORMAL], {FEATURES: observe})[FEATURES]
