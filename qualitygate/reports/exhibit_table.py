"""The exhibit as a table: each sample once, as small pictures, with its record and why it was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qualitygate import storage
from qualitygate.records.gate import ExhibitItem, ExhibitRole, SampleRecord
from qualitygate.reports.pictures import blend_heat, picture

EXHIBIT = "exhibit.parquet"
SIDE = 224
"""Longer side of a picture, in pixels, at most; smaller images keep their size."""
_QUALITY = 82


@dataclass(frozen=True)
class Shown:
    """One sample of a written exhibit; pictures are WebP files.

    Attributes:
        roles: why it was chosen, one or more.
        record: what the gate wrote down of it.
        image: as it came out of the untouched generator.
        corrected: after the correction that was kept or the strongest one tried; None if none was.
        heat: where low-rate neurons fire, over the image in grey; None if activations were not finite.
    """

    roles: tuple[ExhibitRole, ...]
    record: SampleRecord
    image: bytes
    corrected: bytes | None
    heat: bytes | None


def exhibit_columns(items: Sequence[ExhibitItem]) -> dict[str, list[Any]]:
    """Columns of ``exhibit.parquet``: one row for every sample, in the order in which they first stand in the exhibit.

    Heat is scaled to the hottest place of the whole exhibit.
    """
    roles: dict[int, list[ExhibitRole]] = {}
    first: dict[int, ExhibitItem] = {}
    for item in items:
        roles.setdefault(item.record.id, []).append(item.role)
        first.setdefault(item.record.id, item)
    finite = [item.heatmap for item in first.values() if np.isfinite(item.heatmap).all()]
    hottest = max((float(heat.max()) for heat in finite), default=0.0) or 1.0
    return {
        "roles": [[role.value for role in of_sample] for of_sample in roles.values()],
        "record": [item.record.model_dump_json() for item in first.values()],
        "image": [webp(_small(item.image)) for item in first.values()],
        "corrected": [None if item.corrected is None else webp(_small(item.corrected)) for item in first.values()],
        "heat": [_heat(item, hottest) for item in first.values()],
    }


def read_exhibit(path: str | Path) -> list[Shown]:
    """What `exhibit_columns` made.

    Raises:
        ProfileError: it is not there or cannot be read.
    """
    table, _ = storage.read_table(path)
    return [_shown(row) for row in table.to_pylist()]


def webp(image: Image.Image, quality: int = _QUALITY) -> bytes:
    """A picture as a WebP file."""
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=2)
    return buffer.getvalue()


def _shown(row: Mapping[str, Any]) -> Shown:
    roles = tuple(map(ExhibitRole, row["roles"]))
    record = SampleRecord.model_validate_json(row["record"])
    return Shown(roles, record, row["image"], row["corrected"], row["heat"])


def _small(pixels: np.ndarray) -> Image.Image:
    return picture(pixels, min(SIDE, max(pixels.shape[:2])))


def _heat(item: ExhibitItem, hottest: float) -> bytes | None:
    if not np.isfinite(item.heatmap).all():
        return None
    below = picture(item.image, min(SIDE, max(128, *item.image.shape[:2])))
    return webp(blend_heat(below, item.heatmap, hottest))
