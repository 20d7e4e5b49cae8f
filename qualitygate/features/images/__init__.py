"""Sets of real images: a folder, a zip or tar archive, Parquet, a numpy file, or scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path

from qualitygate.errors import InputError
from qualitygate.features.images import archive, array, folder, parquet
from qualitygate.features.images.digits import digits_images as digits_images
from qualitygate.features.images.image_set import ImageSet as ImageSet
from qualitygate.features.images.image_set import Resize, Source

_KNOWN = "a folder, .zip, .tar (.tar.gz, .tgz), .parquet, .npz or .npy"


def open_images(path: str | Path, *, size: int | None = None) -> ImageSet:
    """The images at a path, in the order of their names (of their rows, where they have no names).

    Nothing is decoded before the first batch is asked for. See `ImageSet` for what comes out.

    Args:
        path: a folder (searched with all folders below), a zip or tar archive of PNG, JPEG, WebP and BMP files, a Parquet
            file with a column of such files' bytes, or an ``.npy`` or ``.npz`` with an array of images.
        size: height and width to bring them to; default as they are.

    Raises:
        InputError: nothing is there, or nothing of a known kind; an image cannot be read (while iterating).
    """
    path = Path(path)
    return ImageSet(path.name or str(path), _source(path), Resize(size) if size is not None else None)


def _source(path: Path) -> Source:
    if not path.exists():
        raise InputError(f"There is nothing at {path}", "no such file or folder", _KNOWN, "check the path")
    if path.is_dir():
        return folder.FolderSource(path)
    name = path.name.lower()
    if name.endswith(".zip"):
        return archive.ZipSource(path)
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return archive.TarSource(path)
    if name.endswith(".parquet"):
        return parquet.ParquetSource(path)
    if name.endswith((".npz", ".npy")):
        return array.ArraySource(path)
    raise InputError(f"{path} is no set of images", f"a file called {path.name}", _KNOWN, "pack the images in one of these")
