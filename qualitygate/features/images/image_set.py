"""A set of images as a stream: decoded, checked, brought to one size, hashed."""

from __future__ import annotations

import abc
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qualitygate.errors import InputError
from qualitygate.features.images.decoding import decoded

BATCH = 64
_THREADS = min(16, os.cpu_count() or 1)
_AHEAD = 2 * BATCH  # images decoded or waiting at once


@dataclass(frozen=True)
class Item:
    """One image as it is stored.

    Attributes:
        name: how messages call it.
        content: bytes of an image file, or uint8 (height, width, 1 or 3).
    """

    name: str
    content: bytes | np.ndarray


class Source(abc.ABC):
    """Where images are stored. They can be gone through any number of times, always in the same order."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abc.abstractmethod
    def __iter__(self) -> Iterator[Item]:
        """The images, one in memory at a time."""


@dataclass(frozen=True)
class Resize:
    """How images are brought to one size: their centre square, by Pillow's bicubic with its low-pass filter, in 8 bits."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError("Images cannot have this size", str(self.size), "at least 1")

    def __str__(self) -> str:
        return f"centre square, Pillow bicubic to {self.size}"

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (size, size, channels) of uint8 (height, width, channels)."""
        height, width, channels = pixels.shape
        side = min(height, width)
        if (height, width) == (self.size, self.size):
            return pixels
        top, left = (height - side) // 2, (width - side) // 2
        square = pixels[top : top + side, left : left + side]
        image = Image.fromarray(square[:, :, 0] if channels == 1 else square)
        resized = np.asarray(image.resize((self.size, self.size), Image.Resampling.BICUBIC))
        return resized.reshape(self.size, self.size, channels)


class ImageSet:
    """Images as batches float32 (at most 64, channels, height, width) in [-1, 1], in a fixed order.

    Files come out as RGB, whatever they are; arrays keep their one or three channels. Images are streamed: memory holds
    a few batches, whatever the size of the set.

    Args:
        name: what people call the set.
        source: where the images are.
        resize: how they are brought to one size; None to take them as they are, which must be one size.

    Attributes:
        count: number of images.
    """

    def __init__(self, name: str, source: Source, resize: Resize | None = None) -> None:
        self.name, self.resize = name, resize
        self._source = source
        self.count = len(source)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Tensor]:
        shape: tuple[int, ...] | None = None
        batch: list[np.ndarray] = []
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="images") as pool:
            for name, pixels in _ahead(pool, self._pixels, self._source):
                if shape not in (None, pixels.shape):
                    raise InputError(
                        f"The images of {self.name} are not of one size",
                        f"{_shown(pixels.shape)} in {name}, {_shown(shape)} before it",
                        "images of one size",
                        "give the size to bring them to",
                    )
                shape = pixels.shape
                batch.append(pixels)
                if len(batch) == BATCH:
                    yield _as_tensor(batch)
                    batch = []
        if batch:
            yield _as_tensor(batch)

    @property
    def preparation(self) -> str:
        """What was done to the images, in words; part of what makes numbers comparable."""
        return "as stored" if self.resize is None else str(self.resize)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the contents in their order: the files' bytes, or the pixels. Names, dates and the way they are packed do
        not count. Reads all of them once."""
        digest = hashlib.sha256()
        for item in self._source:
            content = item.content
            if isinstance(content, np.ndarray):
                digest.update(f"pixels {content.shape}\n".encode())
                digest.update(np.ascontiguousarray(content).data)
            else:
                digest.update(f"file {len(content)}\n".encode())
                digest.update(content)
        return digest.hexdigest()

    def _pixels(self, item: Item) -> tuple[str, np.ndarray]:
        content = item.content
        pixels = content if isinstance(content, np.ndarray) else decoded(content, item.name)
        return item.name, self.resize(pixels) if self.resize else pixels


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], tuple[str, np.ndarray]], items: Iterable[Item]
) -> Iterator[tuple[str, np.ndarray]]:
    """The results in order, with a bounded number of them worked on ahead."""
    waiting: deque[Future[tuple[str, np.ndarray]]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _as_tensor(batch: list[np.ndarray]) -> Tensor:
    pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
    return pixels.contiguous().float() / 127.5 - 1.0


def _shown(shape: tuple[int, ...] | None) -> str:
    return "×".join(map(str, shape or ()))
