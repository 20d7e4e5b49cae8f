"""Arrays as pictures of one size, heat over them, and text in them: measured before it is drawn, so that nothing is clipped.

The font is the DejaVu Sans that matplotlib brings: it covers far more than Latin, and looks the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qualitygate.errors import InputError
from qualitygate.reports.style import HEAT_MAP

STRONGEST = 0.85  # share of heat's colour in the blend where the heat is greatest: the image stays visible below it


def picture(pixels: np.ndarray, side: int) -> Image.Image:
    """A uint8 image (height, width, channels) with 1 or 3 channels, as an RGB picture whose longer side is ``side`` pixels."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        needed = "uint8 (height, width, channels) with 1 or 3 channels"
        raise InputError("An image of the exhibit cannot be drawn", f"{pixels.dtype} {pixels.shape}", needed)
    whole = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    longer = max(whole.size)
    width, height = (max(1, round(length * side / longer)) for length in whole.size)
    # whole factors keep the pixels as they are; other ones would repeat them unevenly
    larger = Image.Resampling.NEAREST if side % longer == 0 else Image.Resampling.BICUBIC
    return whole.resize((width, height), Image.Resampling.LANCZOS if side < longer else larger)


def blend_heat(below: Image.Image, heat: np.ndarray, hottest: float) -> Image.Image:
    """Heat over a picture: the hotter, the brighter and the more opaque. The picture loses its colours, so that every colour is heat.

    ``heat`` is finite float (height, width), not negative, and stretched to the picture; ``hottest`` > 0 gets the end of the colour map.
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


def webp(image: Image.Image, quality: int = 82) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=2)
    return buffer.getvalue()


Font = ImageFont.FreeTypeFont


@cache
def font(size: int, bold: bool = False) -> Font:
    """The font at a size in pixels."""
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    # the basic layout engine is always there; the other one is not, and would place letters differently
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


def text_width(text: str, of: Font) -> int:
    """Pixels that one line of text takes."""
    return ceil(max(of.getlength(text), of.getbbox(text)[2]))


def line_height(of: Font) -> int:
    """Pixels from one line to the next."""
    return sum(of.getmetrics())


def widest_word(texts: Iterable[str], of: Font) -> int:
    """The width below which `wrap` cannot go: that of the longest word; 0 without words."""
    return max((text_width(word, of) for text in texts for word in text.split()), default=0)


def wrap(text: str, of: Font, width: int) -> list[str]:
    """Lines of at most ``width`` pixels, broken between words; a word that is longer stands alone."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, of) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def draw_lines(draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str], of: Font, color: str) -> None:
    """Lines of text below each other, from the top left corner."""
    x, y = corner
    for number, line in enumerate(lines):
        draw.text((x, y + number * line_height(of)), line, font=of, fill=color)


def draw_within(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], text: str, of: Font, color: str, align: Literal["center", "right"]
) -> None:
    """Text wrapped into a box (left, top, right, bottom), at the middle of its height."""
    left, top, right, bottom = box
    lines = wrap(text, of, right - left)
    y = (top + bottom - len(lines) * line_height(of)) // 2
    for place, line in enumerate(lines):
        room = right - left - text_width(line, of)
        draw_lines(draw, (left + (room if align == "right" else room // 2), y + place * line_height(of)), [line], of, color)
