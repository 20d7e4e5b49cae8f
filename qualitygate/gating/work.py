"""What a block of samples collects while it is gated."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qualitygate import names


@dataclass
class Work:
    """Columns and finished images of a block, by row.

    Attributes:
        count: samples in the block.
        columns: every score and every outcome of a correction, by name, float64 (count,).
        images: by row, float32 (channels, height, width).
    """

    count: int
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    images: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, count: int) -> Work:
        return cls(count, {names.IMAGE_FINITE: np.full(count, np.nan), names.MOVED: np.full(count, np.nan)})

    def write(self, rows: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Put values of some rows into columns; other rows of a new column are empty."""
        for name, values in columns.items():
            empty = 0.0 if names.is_tried(name) else np.nan
            self.columns.setdefault(name, np.full(self.count, empty))[rows] = values

    def receive(self, rows: np.ndarray, images: Tensor) -> None:
        """Keep finished images, and whether they are finite; a `late.Sink`."""
        finite = torch.isfinite(images.sum(dim=(1, 2, 3))).cpu().numpy()
        self.columns[names.IMAGE_FINITE][rows] = finite
        for row, image in zip(rows.tolist(), images.cpu().numpy(), strict=True):
            self.images[row] = image
