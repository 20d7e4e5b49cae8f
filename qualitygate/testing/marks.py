"""What a planted defect paints, and where: one opacity and one colour for each pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MarkName = Literal["blob", "stripes", "texture", "cast", "frame"]


@dataclass(frozen=True)
class Mark:
    """A mark at full strength.

    Attributes:
        opacity: float32 (height, width) in [0, 1]; what is positive is marked.
        colour: float32 (channels, height, width) in [-1, 1].
    """

    opacity: Tensor
    colour: Tensor


@dataclass(frozen=True)
class _Canvas:
    """Size of the image, and the numbers in (0, 1) that a mark's place, colour and grain are made of."""

    height: int
    width: int
    place: Tensor
    hue: Tensor
    grain: Tensor

    def square(self) -> Tensor:
        """Opacity of a square of a third of the side, anywhere inside the image."""
        opacity = torch.zeros(self.height, self.width)
        tall, wide = max(1, self.height // 3), max(1, self.width // 3)
        top, left = int(self.place[0] * (self.height - tall + 1)), int(self.place[1] * (self.width - wide + 1))
        opacity[top : top + tall, left : left + wide] = 1.0
        return opacity

    def plain(self) -> Tensor:
        """One colour everywhere: each channel at one of its ends, the first random."""
        ends = torch.where(self.hue > 0.5, 0.9, -0.9)
        return ends[:, None, None].expand(-1, self.height, self.width)


def draw(name: MarkName, image_shape: tuple[int, int, int], numbers: Tensor) -> Mark:
    """A mark for images of that shape.

    Args:
        name: ``blob``: a disc with a soft edge; ``stripes`` and ``texture``: a square of black and white bars, or of noise;
            ``cast``: the whole image tinted; ``frame``: black edges.
        image_shape: channels, height, width.
        numbers: uniforms in (0, 1), `numbers_needed` of them: the mark is a function of them.
    """
    channels, height, width = image_shape
    place, hue, grain = numbers.float().split([2, channels, channels * height * width])
    opacity, colour = _PAINTERS[name](_Canvas(height, width, place, hue, grain.view(image_shape)))
    return Mark(opacity.contiguous(), colour.expand(image_shape).contiguous())


def numbers_needed(image_shape: tuple[int, int, int]) -> int:
    """Uniforms that `draw` needs."""
    channels, height, width = image_shape
    return 2 + channels + channels * height * width


def _blob(canvas: _Canvas) -> tuple[Tensor, Tensor]:
    radius = max(1.5, min(canvas.height, canvas.width) / 6)
    top = radius + canvas.place[0] * (canvas.height - 1 - 2 * radius)
    left = radius + canvas.place[1] * (canvas.width - 1 - 2 * radius)
    rows, columns = torch.arange(canvas.height)[:, None] - top, torch.arange(canvas.width) - left
    return ((radius - torch.hypot(rows, columns)) / (0.3 * radius)).clamp(0.0, 1.0), canvas.plain()


def _stripes(canvas: _Canvas) -> tuple[Tensor, Tensor]:
    black_or_white = torch.arange(canvas.width) // 2 % 2 * 2.0 - 1.0
    return canvas.square(), black_or_white


def _texture(canvas: _Canvas) -> tuple[Tensor, Tensor]:
    return canvas.square(), canvas.grain * 2.0 - 1.0


def _cast(canvas: _Canvas) -> tuple[Tensor, Tensor]:
    return torch.full((canvas.height, canvas.width), 0.35), canvas.plain()


def _frame(canvas: _Canvas) -> tuple[Tensor, Tensor]:
    opacity = torch.ones(canvas.height, canvas.width)
    tall, wide = max(1, canvas.height // 10), max(1, canvas.width // 10)
    opacity[tall:-tall, wide:-wide] = 0.0
    return opacity, torch.tensor(-1.0)


_PAINTERS: dict[MarkName, Callable[[_Canvas], tuple[Tensor, Tensor]]] = {
    "blob": _blob,
    "stripes": _stripes,
    "texture": _texture,
    "cast": _cast,
    "frame": _frame,
}
