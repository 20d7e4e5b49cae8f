"""Sets of images as streams: decoded within bounds, checked, brought to one size, hashed."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qualitygate.errors import InputError, MissingExtraError
from qualitygate.features.image_sources import Item, Source, open_source, too_large

BATCH = 64
DIGITS = "digits"  # in place of a path: scikit-learn's digits
_THREADS = min(16, os.cpu_count() or 1)
_AHEAD = 2 * BATCH  # images decoded or waiting at once
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # all others are never tried: some call other programs
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_GREY = ("1", "L", "LA")
_ENOUGH = 1000  # real images: as many as there are in a group of the papers
_NEEDED = "an 8-bit PNG, JPEG, WebP or BMP image"


class ImageSet:
    """Images as batches float32 (at most 64, channels, height, width) in [-1, 1], in a fixed order.

    Files come out as RGB, whatever they are; arrays keep their one or three channels. They are brought to a size (height and width): their
    centre square, by Pillow's bicubic with its low-pass filter, in 8 bits; without one they must be of one size. Images are streamed:
    memory holds a few batches, whatever the size of the set.
    """

    def __init__(self, name: str, source: Source, size: int | None = None) -> None:
        if size is not None and size < 1:
            raise InputError("Images cannot have this size", str(size), "at least 1")
        self.name, self.count = name, source.count
        self._source, self._size = source, size

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Tensor]:
        shape: tuple[int, ...] | None = None
        batch: list[np.ndarray] = []
        for name, pixels in self._ahead():
            if shape not in (None, pixels.shape):
                here, before = ("×".join(map(str, one or ())) for one in (pixels.shape, shape))
                raise InputError(
                    f"The images of {self.name} are not of one size",
                    f"{here} in {name}, {before} before it",
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
        return "as stored" if self._size is None else f"centre square, Pillow bicubic to {self._size}"

    @property
    def sha256(self) -> str:
        """SHA-256 over the contents, not dates and the way they are packed: the bytes of files in whatever order, as other names make no
        other set, or pixels in the order of their rows."""
        return self._seen[0]

    @property
    def ordered_sha256(self) -> str:
        """SHA-256 over the contents in their order: of what is kept row by row."""
        return self._seen[1]

    @cached_property
    def _seen(self) -> tuple[str, str, Counter[str]]:
        """SHA-256 of the set, and of the images in their order; how many are of which kind."""
        pixels, files = hashlib.sha256(), []
        kinds: Counter[str] = Counter()
        for item in self._source.items():
            kinds.update(_kinds(item, self._size))
            if isinstance(item.content, np.ndarray):
                pixels.update(f"pixels {item.content.shape}\n".encode())
                pixels.update(np.ascontiguousarray(item.content).data)
            else:
                files.append(hashlib.sha256(item.content).digest())
        if not files:
            return pixels.hexdigest(), pixels.hexdigest(), kinds
        of_set, ordered = (hashlib.sha256(b"".join(some)).hexdigest() for some in (sorted(files), files))
        return of_set, ordered, kinds

    def remarks(self, channels: int) -> tuple[str, ...]:
        """In what the images as they are stored differ from those of a generator with so many channels: format, size, shape, colour, and
        number. Numbers against them move with each."""
        kinds, count = self._seen[2], self.count
        lossy = kinds["JPEG"] + kinds["WEBP"]
        compressed = ", ".join(f"{kinds[one]:,} {one}" for one in ("JPEG", "WEBP") if kinds[one])
        asked = {
            f"{lossy:,} were stored with losses ({compressed}), generated ones were not": lossy,
            f"{kinds['smaller']:,} were enlarged to {self._size}×{self._size}, and have less detail than that": kinds["smaller"],
            f"{kinds['larger']:,} were made smaller, to {self._size}×{self._size}": kinds["larger"],
            f"{kinds['cropped']:,} were cropped to their centre square": kinds["cropped"],
            f"{kinds['grey']:,} are grey, generated ones have colours": kinds["grey"] if channels == 3 else 0,
            f"{kinds['colour']:,} are stored in colours, generated ones are grey": kinds["colour"] if channels == 1 else 0,
        }
        few = (f"{count:,} real images are fewer than {_ENOUGH:,}: which ones they are decides much",) if count < _ENOUGH else ()
        return few + tuple(f"of {count:,} real images, {what}" for what, how_many in asked.items() if how_many)

    def name_of(self, row: int) -> str:
        """What messages call an image: its path, or its place in its file."""
        return next(islice(self._source.items(), row, None)).name

    def _ahead(self) -> Iterator[tuple[str, np.ndarray]]:
        """Names and pixels in order, with a bounded number of images worked on ahead."""
        waiting: deque[Future[tuple[str, np.ndarray]]] = deque()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="images") as pool:
            for item in self._source.items():
                waiting.append(pool.submit(self._pixels, item))
                if len(waiting) >= _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _pixels(self, item: Item) -> tuple[str, np.ndarray]:
        pixels = item.content if isinstance(item.content, np.ndarray) else _decoded(item.content, item.name)
        return item.name, pixels if self._size is None else _resized(pixels, self._size)


def open_images(path: str | Path, *, size: int | None = None) -> ImageSet:
    """The images at a path, in the order of their names (of their rows, where they have no names): a folder (searched with all folders
    below), a zip or tar archive of PNG, JPEG, WebP and BMP files, a Parquet file with a column of such files' bytes, or an ``.npy`` or
    ``.npz`` with an array of images. Nothing is decoded before the first batch is asked for; an image that is damaged, too large, of
    another format, or with more than 8 bits a colour is an `InputError` then."""
    path = Path(path)
    return ImageSet(path.name or str(path), open_source(path), size)


def real_images(real: str | Path, size: int) -> ImageSet:
    """The images at a path, or ``digits``, at a size."""
    return digits_images(size) if real == DIGITS else open_images(real, size=size)


def digits_images(size: int = 32) -> ImageSet:
    """The 1,797 real images of handwritten digits that come with scikit-learn (8×8, grey), at a size."""
    pixels, _ = _digits()
    source = Source(len(pixels), lambda: (Item(f"digit {row}", image) for row, image in enumerate(pixels)))
    return ImageSet("scikit-learn digits", source, size)


def digits_labels() -> np.ndarray:
    """Which digit each of them is: int64 (1797,)."""
    return _digits()[1]


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (1797, 8, 8, 1) and labels int64 (1797,)."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("The digits are part of scikit-learn", str(error), "scikit-learn", "pip install scikit-learn") from error
    digits = load_digits()
    return np.rint(digits.images * (255.0 / 16)).astype(np.uint8)[..., None], digits.target.astype(np.int64)  # pixels are 0 … 16


def _decoded(content: bytes, name: str) -> np.ndarray:
    """Pixels uint8 (height, width, 3) of an image file; transparency is dropped, and EXIF rotations are not applied."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise too_large(name, f"{image.width}×{image.height} pixels")
            if image.mode not in _MODES:
                raise InputError(f"{name} cannot be used", f"pixels of kind {image.mode}", _NEEDED, "convert it to 8 bits")
            return np.asarray(image.convert("RGB"))
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_large(name, str(error)) from error
    except Exception as error:  # damaged files break decoders in many ways
        found = f"{type(error).__name__}: {error}"
        raise InputError(f"{name} cannot be read as an image", found, _NEEDED, "repair or remove it") from error


def _kinds(item: Item, size: int | None) -> Iterator[str]:
    """What is to be said of an image as it is stored, from the header alone; nothing of one that cannot be read, which is refused later."""
    if isinstance(item.content, np.ndarray):
        height, width, channels = item.content.shape
        grey = channels == 1
    else:
        try:
            with Image.open(io.BytesIO(item.content), formats=_FORMATS) as image:
                width, height = image.size
                grey = image.mode in _GREY
                yield str(image.format)
        except Exception:  # damaged files break decoders in many ways
            return
    yield "grey" if grey else "colour"
    if size is not None:
        if height != width:
            yield "cropped"
        if min(height, width) != size:
            yield "smaller" if min(height, width) < size else "larger"


def _resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 (size, size, channels): the centre square of uint8 (height, width, channels)."""
    height, width, channels = pixels.shape
    if (height, width) == (size, size):
        return pixels
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    image = Image.fromarray(square[:, :, 0] if channels == 1 else square)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).reshape(size, size, channels)


def _as_tensor(batch: list[np.ndarray]) -> Tensor:
    pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
    return pixels.contiguous().float() / 127.5 - 1.0
