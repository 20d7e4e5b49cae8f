"""From images as the package has them to what a network was trained on: colours, size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.errors import InputError


def in_colour(images: Tensor) -> Tensor:
    """Images (N, 1 or 3, height, width) with three channels, the single one of grey images repeated.

    Raises:
        InputError: another shape.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError("These are no images", f"shape {tuple(images.shape)}", "(N, 1 or 3, height, width)")
    return images.expand(-1, 3, -1, -1)


def eight_bit(images: Tensor) -> Tensor:
    """Images in [-1, 1] rounded to the 256 values that a file of them holds."""
    return torch.round((images.clamp(-1.0, 1.0) + 1.0) * 127.5) / 127.5 - 1.0


def smooth_resized(images: Tensor, size: int) -> Tensor:
    """Images (N, channels, size, size), bilinear, with a low-pass filter where they get smaller."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def tf1_resized(images: Tensor, size: int) -> Tensor:
    """Images (N, channels, size, size) as TensorFlow 1's ``resize_bilinear`` makes them: output pixel i is read at
    ``i · (input size / size)``, without half-pixel centres and without a low-pass filter."""
    height, width = images.shape[2:]
    if (height, width) == (size, size):
        return images
    x, y = (_tf1_positions(before, size).to(images) for before in (width, height))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _tf1_positions(before: int, after: int) -> Tensor:
    """Where each output pixel is read, in `grid_sample`'s coordinates: pixel p of the input is at (2p + 1) / size − 1."""
    pixels = torch.arange(after, dtype=torch.float64) * (before / after)
    return (2.0 * pixels + 1.0) / before - 1.0


def averaged_down(images: Tensor, largest: int = 256) -> Tensor:
    """Images with whole blocks of pixels averaged until they are smaller than twice ``largest``, as path lengths are measured
    (Karras et al. 2019, appendix C: VGG16 was made for 224×224)."""
    factor = images.shape[2] // largest
    return F.avg_pool2d(images, factor) if factor > 1 else images
