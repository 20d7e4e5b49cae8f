"""Text in pictures: measured before it is drawn, so that nothing is clipped.

The font is the DejaVu Sans that matplotlib brings: it covers far more than Latin, and looks the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from math import ceil, isfinite
from pathlib import Path
from typing import Literal

import matplotlib
from PIL import ImageDraw, ImageFont

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


def number(value: float) -> str:
    """A score or a limit for people: counts in full, other numbers with four digits."""
    if not isfinite(value):
        return "not finite"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}"
