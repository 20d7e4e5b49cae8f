"""Arrays of an exhibit as pictures of one size."""

from __future__ import annotations

import matplotlib
import numpy as np
from PIL import Image

from qualitygate.errors import InputError
from qualitygate.reports.palette import HEAT_MAP

STRONGEST = 0.85
"""Share of heat's colour in the blend where the heat is greatest: the image stays visible below it."""


def picture(pixels: np.ndarray, side: int) -> Image.Image:
    """An image as an RGB picture whose longer side is ``side`` pixels.

    Args:
        pixels: uint8 (height, width, channels) with 1 or 3 channels.
        side: length of the longer side, in pixels.

    Raises:
        InputError: another type or shape.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise InputError(
            "An image of the exhibit cannot be drawn",
            f"{pixels.dtype} {pixels.shape}",
            "uint8 (height, width, channels) with 1 or 3 channels",
        )
    whole = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    method = _resampling(max(whole.size), side)
    return whole.resize(_fitted(whole.size, side), method)


def blend_heat(below: Image.Image, heat: np.ndarray, hottest: float) -> Image.Image:
    """Heat over a picture: the hotter, the brighter and the more opaque.

    The picture loses its colours, so that every colour in the result is heat.

    Args:
        below: the picture.
        heat: finite float (height, width), not negative; stretched to the size of the picture.
        hottest: heat that gets the end of the colour map, positive.
    """
    stretched = Image.fromarray(heat.astype(np.float32)).resize(below.size, Image.Resampling.BILINEAR)
    level = np.clip(np.asarray(stretched) / hottest, 0.0, 1.0)
    color = matplotlib.colormaps[HEAT_MAP](level)[:, :, :3] * 255.0
    gray = np.asarray(below.convert("L"), dtype=np.float64)[:, :, None]
    opacity = STRONGEST * level[:, :, None]
    return Image.fromarray(np.rint(opacity * color + (1.0 - opacity) * gray).astype(np.uint8))


def heat_scale(width: int, height: int) -> Image.Image:
    """What `blend_heat` makes of heat that rises from left to right, over a middle gray."""
    rising = np.broadcast_to(np.linspace(0.0, 1.0, width, dtype=np.float32), (height, width))
    return blend_heat(Image.new("RGB", (width, height), "#999999"), rising, 1.0)


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    width, height = (max(1, round(length * side / max(size))) for length in size)
    return width, height


def _resampling(before: int, after: int) -> Image.Resampling:
    """Whole factors keep the pixels as they are; other factors would repeat them unevenly."""
    if after < before:
        return Image.Resampling.LANCZOS
    return Image.Resampling.NEAREST if after % before == 0 else Image.Resampling.BICUBIC
