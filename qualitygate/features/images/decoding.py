"""Image files to pixels, within bounds."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from qualitygate.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_FILE = 2**28  # bytes of one image file; the largest that its pixels may be is Pillow's MAX_IMAGE_PIXELS
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # all others are never tried: some call other programs
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_NEEDED = "an 8-bit PNG, JPEG, WebP or BMP image"


def decoded(content: bytes, name: str) -> np.ndarray:
    """Pixels uint8 (height, width, 3) of an image file; transparency is dropped, and EXIF rotations are not applied.

    Raises:
        InputError: damaged, too large, of another format, or with more than 8 bits a colour.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check(image, name)
            return np.asarray(image.convert("RGB"))
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, str(error)) from error
    except Exception as error:  # damaged files break decoders in many ways
        raise InputError(
            f"{name} cannot be read as an image", f"{type(error).__name__}: {error}", _NEEDED, "repair or remove it"
        ) from error


def checked_length(length: int, name: str) -> int:
    """The length of a file, if it is within `MAX_FILE`."""
    if length > MAX_FILE:
        raise _too_large(name, f"{length:,} bytes")
    return length


def is_image(name: str) -> bool:
    """Whether a file of this name is one that we read: hidden ones are not."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def _check(image: Image.Image, name: str) -> None:
    pixels = image.width * image.height
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise _too_large(name, f"{image.width}×{image.height} pixels")
    if image.mode not in _MODES:
        raise InputError(f"{name} cannot be used", f"pixels of kind {image.mode}", _NEEDED, "convert it to 8 bits")


def _too_large(name: str, found: str) -> InputError:
    return InputError(
        f"{name} is too large for an image",
        found,
        f"at most {Image.MAX_IMAGE_PIXELS:,} pixels and {MAX_FILE:,} bytes",
        "remove it, or make it smaller",
    )
