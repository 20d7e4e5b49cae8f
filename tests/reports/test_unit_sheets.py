"""The sheet of units: everything on it, and heat where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from qualitygate.errors import InputError
from qualitygate.reports.sheets import UnitPictures, unit_sheet


def unit(caption: str, hot: float = 1.0, images: int = 2) -> UnitPictures:
    gray = np.full((16, 16, 3), 120, dtype=np.uint8)
    heat = np.zeros((16, 16), dtype=np.float32)
    heat[4:12, 4:12] = hot
    return UnitPictures(caption, gray, [gray] * images, [heat] * images)


def test_one_column_a_unit_and_two_rows_an_image() -> None:
    one, six = unit_sheet([unit("a")], "Units"), unit_sheet([unit(name) for name in "abcdef"], "Units")
    assert six.width > one.width
    assert unit_sheet([unit("a", images=3)], "Units").height > one.height
    assert unit_sheet([unit(name) for name in "abcdef"], "Units", columns=1).height > six.height


def test_heat_is_coloured_and_silence_is_not() -> None:
    def colours(sheet) -> int:
        pixels = np.asarray(sheet).astype(int)
        return int((np.ptp(pixels, axis=2) > 40).sum())

    assert colours(unit_sheet([unit("a")], "Units")) > 1000
    assert colours(unit_sheet([unit("a", hot=0.0)], "Units")) < 1000


def test_no_units() -> None:
    with pytest.raises(InputError, match="nothing to put"):
        unit_sheet([], "Units")
