"""Safetensors files, mapped into memory by their own library."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.layouts.native import METADATA_KEY
from qualitygate.checkpoints.packing.records import Damaged

_LENGTH_BYTES = 8  # before the header, a JSON object


def is_safetensors(source: memoryview) -> bool:
    """Whether the file begins with a length and a JSON object."""
    return source[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"


def read_safetensors(path: Path) -> Contents:
    """The tensors, and as settings our own metadata where the file has them.

    Raises:
        Damaged: cut off, or the header makes no sense.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise Damaged(f"a safetensors file that is cut off or inconsistent ({error})") from error
    if METADATA_KEY not in metadata:
        return Contents("safetensors", tensors, metadata)
    settings = {METADATA_KEY: json.loads(metadata[METADATA_KEY])}
    return Contents("safetensors", TensorGroup("", tensors, settings), metadata)
