"""What metrics and unit scores ask of a feature extractor, how images are prepared for one, and features of many images."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.generators.passes import IMAGE_BATCH, Progress, on_host, scored_pass, silent

_COLOURS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def in_colour(images: Tensor) -> Tensor:
    """Images (N, 1 or 3, height, width) with three channels, the single one of grey images repeated. They are laid out channel by channel,
    as whoever brings them may have them otherwise, and convolutions round otherwise then: equal pixels have equal features."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError("These are no images", f"shape {tuple(images.shape)}", "(N, 1 or 3, height, width)")
    return images.expand(-1, 3, -1, -1).contiguous()


def eight_bit(images: Tensor) -> Tensor:
    """Images (N, channels, height, width) in [-1, 1] rounded to the 256 values that a file of them holds."""
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
    # pixel p of the input is at (2p + 1) / size − 1 in `grid_sample`'s coordinates
    pixels = torch.arange(size, dtype=torch.float64, device=images.device)
    x, y = (((2.0 * pixels * (before / size) + 1.0) / before - 1.0).to(images) for before in (width, height))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def bicubic_resized(images: Tensor, size: int) -> Tensor:
    """Images (N, channels, size, size), bicubic, with a low-pass filter where they get smaller, as Pillow makes them: along rows, then
    along columns, rounded to 8 bits each time (of images that are not square it may take the columns first)."""
    for shape in ((images.shape[2], size), (size, size)):
        if images.shape[2:] != shape:
            images = eight_bit(F.interpolate(images, size=shape, mode="bicubic", align_corners=False, antialias=True))
    return images


@cache  # on a GPU they are not waited for again
def colours(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of ImageNet's colours in [0, 1], float32 (3, 1, 1) each."""
    mean, deviation = torch.tensor(_COLOURS, device=device)[:, :, None, None]
    return mean, deviation


def imagenet_scaled(images: Tensor) -> Tensor:
    """RGB images (N, 3, height, width) in [-1, 1] less the mean of ImageNet's colours, in their standard deviations."""
    mean, deviation = colours(images.device)
    return ((images + 1.0) / 2.0 - mean) / deviation


def averaged_down(images: Tensor) -> Tensor:
    """Images with whole blocks of pixels averaged until they are smaller than 512, as path lengths are measured (Karras et al. 2019,
    appendix C: VGG16 was made for 224×224)."""
    factor = images.shape[2] // 256
    return F.avg_pool2d(images, factor) if factor > 1 else images


class Extractor(abc.ABC):
    """Images to feature vectors, the same vector for an image whatever else is in the batch.

    Attributes:
        key: everything that makes numbers comparable, in one line: network, hash of its weights, size and manner of resizing,
            precision. Two numbers are compared only if their keys are equal.
        features: length of a vector.
        kept: whether the features may be kept for another run: not where the code is somebody else's, which no key contains.
    """

    key: str
    features: int
    kept: bool = True

    @abc.abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 (N, features) of images float32 (N, 1 or 3, height, width) in [-1, 1] of any size, on the device of the
        extractor; resizing and scaling are the extractor's own."""


class SpatialExtractor(Extractor):
    """An extractor whose features, of so many channels, have a place in the image: what a Grad-CAM needs."""

    channels: int

    @abc.abstractmethod
    def spatial(self, images: Tensor) -> Tensor:
        """Features float32 (N, channels, height, width), differentiable in the images."""


class PerceptualDistance(abc.ABC):
    """A distance between images, for path lengths; its key is as of an `Extractor`."""

    key: str

    @abc.abstractmethod
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance float32 (N,) between images (N, 1 or 3, height, width) in [-1, 1], row by row."""


def extract(
    extractor: Extractor,
    images: Tensor | Iterable[Tensor],
    progress: Progress = silent,
    *,
    called: Callable[[int], str] = "image {}".format,
) -> np.ndarray:
    """Features float32 (N, features) of images, on the CPU and in their order.

    The images are (N, 1 or 3, height, width) in [-1, 1], or batches of such, of any numbers; an `ImageSet` is one. Generated ones are
    judged as the files they would be written to: rounded to 8 bits. Passes have no gradients and no TF32, and always have the same number
    of images (the last one is padded), laid out channel by channel: a copy of a real image has its features, to the bit. Messages call an
    image by what ``called`` says of its row.

    Raises:
        InputError: no images, or features that are not finite.
    """
    batches = [images] if isinstance(images, Tensor) else images
    parts, done = [], 0
    for batch in rebatched(batches, IMAGE_BATCH):
        count = len(batch)
        rows = torch.arange(IMAGE_BATCH, device=batch.device).clamp(max=count - 1)
        with scored_pass():
            features = on_host(extractor(eight_bit(batch[rows]).contiguous())[:count].float()).numpy()
        if not (finite := np.isfinite(features).all(axis=1)).all():
            which = called(done + int(np.argmin(finite)))
            raise InputError(f"The features of {which} are not finite", extractor.key, "finite numbers", "look for NaN in the image")
        parts.append(features)
        done += count
        progress(count)
    if not parts:
        raise InputError("There are no images to extract features from", "nothing", "at least one image")
    return np.concatenate(parts)


def rebatched(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The rows of all batches (n, …) in batches of this size, the last one shorter."""
    left: Tensor | None = None
    for batch in batches:
        left = batch if left is None or not len(left) else torch.cat([left, batch])
        while len(left) >= size:
            yield left[:size]
            left = left[size:]
    if left is not None and len(left):
        yield left
