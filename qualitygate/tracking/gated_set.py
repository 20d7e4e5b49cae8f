"""A gated set as it lies on disk: all that is ever sent, and nothing but that."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.policy.model import Policy, load_policy
from qualitygate.records.gate import GateSummary

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SUMMARY = "summary.json"
POLICY = "policy.yaml"
UNITS = "units.parquet"
REPORT = "report.html"
FILES = (REPORT, SUMMARY, "samples.parquet", "manifest.parquet", "survey.parquet", "exhibit.parquet", UNITS, POLICY, "suite.json")
FOLDERS = ("gallery", "figures")
RANKING_ROWS = 200


@dataclass(frozen=True)
class GatedSet:
    """The parts of a gated folder that tracking needs.

    Attributes:
        folder: where it lies.
        summary: what the gate found.
        policy: the rules it was judged by.
        gate_id: SHA-256 of ``summary.json``, which holds the provenance too: the same set is recognised wherever it was sent.
    """

    folder: Path
    summary: GateSummary
    policy: Policy
    gate_id: str

    @property
    def verdict(self) -> str:
        """``passed`` or ``failed`` by its suite, ``unjudged`` without one."""
        return self.summary.verdict

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return checkpoint_name(self.summary.provenance.checkpoint)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The finite metrics. MLflow would store an infinite one as 1.8e308."""
        return {name: value for name, value in self.summary.metrics.items() if math.isfinite(value)}

    @property
    def not_finite(self) -> list[str]:
        """Names of the metrics that are left out."""
        return sorted(self.summary.metrics.keys() - self.metrics.keys())

    @property
    def files(self) -> list[Path]:
        """The single files that are there."""
        return [self.folder / name for name in FILES if (self.folder / name).is_file()]

    @property
    def folders(self) -> list[Path]:
        """The bounded folders of pictures that are there; the images themselves stay."""
        return [self.folder / name for name in FOLDERS if (self.folder / name).is_dir()]

    @property
    def sheets(self) -> dict[str, Path]:
        """The contact sheets that are there, by image key."""
        return {key: path for key in names.SHEET_KEYS if (path := self.folder / f"{key}.png").is_file()}

    @property
    def has_units(self) -> bool:
        """Whether there is a table of units."""
        return (self.folder / UNITS).is_file()

    @property
    def has_report(self) -> bool:
        """Whether there is a page for people."""
        return (self.folder / REPORT).is_file()

    def ranking(self) -> pd.DataFrame | None:
        """The units to look at first: by CLA where it was computed, then by low-rate activity. None if there is no unit table."""
        import pandas as pd

        if not self.has_units:
            return None
        units = pd.read_parquet(self.folder / UNITS)
        units = units[[names.UNIT_KEY, *units.columns.drop(names.UNIT_KEY)]]
        by = [names.UNIT_CLA, names.UNIT_LOW_RATE]
        return units.sort_values(by, ascending=False, na_position="last", kind="stable").head(RANKING_ROWS)


def checkpoint_name(checkpoint: str) -> str:
    """A checkpoint's file name without folder and ending."""
    return PurePath(checkpoint).stem or "generator"


def is_gated_set(folder: Path) -> bool:
    return (folder / SUMMARY).is_file()


def read_gated_set(folder: str | Path) -> GatedSet:
    """Read what the gate wrote.

    Raises:
        InputError: there is no gated set in the folder, or its summary or policy cannot be read.
    """
    folder = Path(folder)
    if not is_gated_set(folder):
        raise InputError(f"{folder} is not a gated set", f"no {SUMMARY} in it", "a folder written by `qualitygate gate`")
    content = (folder / SUMMARY).read_bytes()
    try:
        document = json.loads(content)
        # JSON has no number that is not finite: writers put null in its place
        document["metrics"] = {name: math.nan if value is None else value for name, value in document["metrics"].items()}
        summary = GateSummary.model_validate(document)
    except (ValueError, LookupError, TypeError, AttributeError, ValidationError) as error:
        raise InputError(f"Cannot read {folder / SUMMARY}", str(error), "the summary of a gated set", "gate the set again") from error
    return GatedSet(folder, summary, load_policy(folder / POLICY), hashlib.sha256(content).hexdigest())


def read_image(path: Path) -> np.ndarray:
    """A picture as uint8 (height, width, 3). MLflow rescales floats, each image by its own range."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
