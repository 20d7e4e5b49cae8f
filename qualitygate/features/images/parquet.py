"""Image files as bytes in a column of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qualitygate.errors import InputError
from qualitygate.features.images.decoding import checked_length
from qualitygate.features.images.image_set import Item, Source

_NEEDED = "one column of image bytes, or of records with a field `bytes` (as Hugging Face data sets have)"
_PREFERRED = ("image", "img", "png", "jpg", "bytes")
_ROWS = 64


class ParquetSource(Source):
    """The images in the rows of a Parquet file, in the order of the rows.

    Raises:
        InputError: no Parquet file, or no column of images, or several.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._path = path
        with _explained(path), pq.ParquetFile(path) as file:
            self._column, self._nested = _column(file.schema_arrow, path)
            self._rows = file.metadata.num_rows
        if not self._rows:
            raise InputError(f"There are no images in {path}", "no rows", "at least one")

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[Item]:
        import pyarrow.parquet as pq

        row = 0
        with _explained(self._path), pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(_ROWS, columns=[self._column]):
                values = batch.column(0)
                for value in values.field("bytes") if self._nested else values:
                    name = f"row {row} of {self._path}"
                    yield Item(name, _content(value, name))
                    row += 1


def _column(schema: Any, path: Path) -> tuple[str, bool]:
    """Name of the column with images, and whether they are a field of its records."""
    import pyarrow.types as types

    found = {}
    for field in schema:
        kind = field.type
        nested = types.is_struct(kind) and any(one.name == "bytes" and _is_binary(one.type) for one in kind)
        if nested or _is_binary(kind):
            found[field.name] = nested
    chosen = [name for name in _PREFERRED if name in found][:1] or list(found)
    if len(chosen) != 1:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(f"It is not clear which column of {path} holds images", columns[:300], _NEEDED)
    return chosen[0], found[chosen[0]]


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_binary(kind) or types.is_large_binary(kind)


def _content(value: Any, name: str) -> bytes:
    if not value.is_valid:
        raise InputError(f"There is no image in {name}", "a missing value", "the bytes of an image", "remove the row")
    content: bytes = value.as_py()
    checked_length(len(content), name)
    return content


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read", str(error).splitlines()[0], "a whole Parquet file") from error
