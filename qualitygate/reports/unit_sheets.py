"""What units draw, on one sheet a layer: a column for each unit, its representative image and the images it is most active in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from qualitygate.errors import InputError
from qualitygate.reports.contact_sheet import comparison_sheet
from qualitygate.reports.pictures import blend_heat, picture

_SIDE = 128


@dataclass(frozen=True)
class UnitPictures:
    """One unit.

    Attributes:
        caption: what it is called.
        representative: uint8 (height, width, channels).
        images: those it is most active in, each uint8 (height, width, channels), the most active first.
        heat: where it is active in each of them, finite float (height, width), at least 0.
    """

    caption: str
    representative: np.ndarray
    images: Sequence[np.ndarray]
    heat: Sequence[np.ndarray]


def unit_sheet(units: Sequence[UnitPictures], title: str, subtitle: str = "", columns: int = 10) -> Image.Image:
    """A sheet of units: representative image, then each of the top images with the unit's heat below it. Heat is scaled to the hottest
    place of the unit's own images.

    Args:
        units: in the order of the sheet, all with as many images.
        title, subtitle: as in `contact_sheet`.
        columns: units beside each other, at most.

    Raises:
        InputError: no units, or arrays that are no images.
    """
    if not units:
        raise InputError("There is nothing to put on a contact sheet", "no units", "at least one unit")
    rows: dict[str, list[np.ndarray]] = {"representative": [unit.representative for unit in units]}
    for place in range(len(units[0].images)):
        rows[f"most active {place + 1}"] = [unit.images[place] for unit in units]
        rows[f"where {place + 1}"] = [_heated(unit, place) for unit in units]
    return comparison_sheet([unit.caption for unit in units], rows, title, subtitle, columns, _SIDE)


def _heated(unit: UnitPictures, place: int) -> np.ndarray:
    hottest = max((float(heat.max()) for heat in unit.heat), default=0.0)
    return np.asarray(blend_heat(picture(unit.images[place], _SIDE), unit.heat[place], hottest or 1.0))
