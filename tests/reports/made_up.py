"""Made-up exhibits: smooth pictures, no generator."""

from __future__ import annotations

import numpy as np
from small_records import PROVENANCE

from qualitygate.records.gate import ExhibitItem, ExhibitRole, RuleLimit, SampleRecord, Verdict

SCORE = "low_rate_0.1"


def limits() -> list[RuleLimit]:
    return [RuleLimit(rule="low_rate", score=SCORE, limit=370.0, source="quantile 0.9", action=Verdict.CORRECT)]


def record(number: int, verdict: str, score: float | None = None) -> SampleRecord:
    value = {"accept": 212.0, "correct": 391.0, "reject": 455.0}[verdict] + number % 13 if score is None else score
    return SampleRecord(
        id=number,
        label=None,
        verdict=Verdict(verdict),
        reasons=() if verdict == "accept" else ("over_limit:low_rate",),
        borderline=False,
        scores={"low_rate_0.3": 999.0, SCORE: value},
        trials=(),
        strength=None,
        moved=None,
        provenance=PROVENANCE,
    )


def item(
    number: int,
    role: ExhibitRole = ExhibitRole.BEST,
    verdict: str = "accept",
    *,
    size: tuple[int, int] = (64, 64),
    channels: int = 3,
    corrected: bool = False,
    nan: bool = False,
    score: float | None = None,
) -> ExhibitItem:
    image = smooth(number, size, channels)
    x = np.linspace(0, 1, size[1])[None, :]
    y = np.linspace(0, 1, size[0])[:, None]
    center = np.random.default_rng(number).uniform(0.2, 0.8, 2)
    heat = 0.31 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / 0.03)
    if nan:
        heat[0, 0] = np.nan
    return ExhibitItem(
        role=role,
        record=record(number, verdict, score),
        image=image,
        corrected=np.ascontiguousarray(image[:, ::-1]) if corrected else None,
        heatmap=heat.astype(np.float32),
    )


def smooth(number: int, size: tuple[int, int], channels: int) -> np.ndarray:
    random = np.random.default_rng(number)
    x, y = np.linspace(0, 1, size[1])[None, :, None], np.linspace(0, 1, size[0])[:, None, None]
    a, b, c = random.uniform(0.3, 1.5, (3, channels))
    return np.rint(127.5 + 127.5 * np.sin(2 * np.pi * (a * x + b * y + c))).astype(np.uint8)
