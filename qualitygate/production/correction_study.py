"""A comparison of corrections on disk: numbers, one row for each sample and strength, and a sheet of before and after."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qualitygate import names, storage
from qualitygate.gating import exhibit
from qualitygate.gating.study import Outcome, Samples
from qualitygate.generators.base import Generator
from qualitygate.reports.contact_sheet import comparison_sheet

DOCUMENT, ROWS, SHEET = "corrections.json", "corrections.parquet", "sheet.png"


def document(samples: Samples, outcomes: Sequence[Outcome], left_out: Mapping[str, str]) -> dict[str, Any]:
    """The comparison as plain data; what is not known is null."""
    return {
        "samples": len(samples.latents),
        "pool": samples.pool,
        "score": samples.score,
        "corrections": [
            {
                "name": one.name,
                "settings": one.correction.model_dump(mode="json"),
                "edited_layers": list(one.edited),
                "judged_layers": list(one.judged),
                "passed": one.passed_share,
                "moved": _known(one.moved),
                "early_passes": one.early_passes,
                "strengths": [
                    {
                        "strength": at.strength,
                        "passed": float(at.passed.mean()),
                        "moved": float(at.moved.mean()),
                        "diversity": _known(at.diversity),
                    }
                    for at in one.at
                ],
            }
            for one in outcomes
        ],
        "left_out": dict(left_out),
    }


def write_study(
    folder: str | Path, generator: Generator, samples: Samples, outcomes: Sequence[Outcome], left_out: Mapping[str, str]
) -> None:
    """Write the comparison into a new folder, in one step.

    Raises:
        OutputError: something is there already.
        StorageError: it cannot be written.
    """
    with storage.new_folder(folder) as made:
        text = json.dumps(document(samples, outcomes, left_out), indent=2, allow_nan=False)
        storage.write_bytes(made / DOCUMENT, text.encode())
        if outcomes:
            storage.write_table(made / ROWS, _rows(samples, outcomes))
            _sheet(generator, samples, outcomes).save(made / SHEET)


def _rows(samples: Samples, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One row for each correction, strength and sample."""
    count = len(samples.latents)
    runs = [(one, at) for one in outcomes for at in one.at]
    return {
        "correction": [one.name for one, _ in runs for _ in range(count)],
        "method": [one.correction.method for one, _ in runs for _ in range(count)],
        names.STRENGTH: np.repeat([at.strength for _, at in runs], count),
        names.ID: np.tile(samples.latents.ids, len(runs)),
        samples.score: np.tile(samples.scores, len(runs)),
        "passed": np.concatenate([at.passed for _, at in runs]),
        names.MOVED: np.concatenate([at.moved for _, at in runs]),
    }


def _sheet(generator: Generator, samples: Samples, outcomes: Sequence[Outcome]) -> Any:
    shown = len(outcomes[0].shown)
    images: dict[str, Sequence[np.ndarray]] = {"generated": exhibit.made_again(generator, samples.latents[:shown])}
    images |= {f"{one.name}: {one.passed_share:.0%} pass": one.shown for one in outcomes}
    return comparison_sheet(
        list(map(str, samples.latents.ids[:shown])),
        images,
        f"The {shown} worst of {samples.pool:,} samples, and what each correction makes of them",
        f"Worst by {samples.score}. Each as the least strength leaves it that passes, or as the strongest does where none passes.",
        columns=shown,
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
