"""What all pictures have in common: width, colours, files that stay small."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from qualitygate.reports.style import DPI, INK, LINE_COLORS, PAPER

WIDE = 14.0
"""Inches, so 1,400 pixels."""
MOST_BYTES = 150_000
"""Of a picture."""
BLUE, RED, GREEN, _, ORANGE, SKY = LINE_COLORS


def blank(height: float) -> Figure:
    return Figure(figsize=(WIDE, height), dpi=DPI, facecolor=PAPER, layout="constrained")


def jpeg(drawn: Image.Image | bytes) -> bytes:
    """Of the best quality that keeps the file small."""
    image = (drawn if isinstance(drawn, Image.Image) else Image.open(io.BytesIO(drawn))).convert("RGB")
    out = io.BytesIO()
    for quality in (90, 84, 78, 72, 66, 60):
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= MOST_BYTES:
            break
    return out.getvalue()


def few_colours(drawn: bytes) -> bytes:
    """A PNG with a palette, for drawings without photographs."""
    out = io.BytesIO()
    Image.open(io.BytesIO(drawn)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def show(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """An image without ticks, its pixels as they are."""
    axes.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=12, color=INK)


def below(figure: Figure, axes: Axes) -> None:
    """One key to all panels, below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=12, labelcolor=INK)
