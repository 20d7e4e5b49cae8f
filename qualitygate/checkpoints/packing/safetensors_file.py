"""Safetensors files, mapped into memory by their own library."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from qualitygate.checkpoints.contents import Contents
from qualitygate.checkpoints.layouts import native
from qualitygate.checkpoints.packing.records import Damaged

_LENGTH_BYTES = 8  # of the header, a JSON object; the upper half is zero, as no header has 4 GB


def is_safetensors(source: memoryview) -> bool:
    """Whether the file begins with a length and a JSON object."""
    return source[_LENGTH_BYTES // 2 : _LENGTH_BYTES + 1] == b"\0\0\0\0{"


def read_safetensors(path: Path) -> Contents:
    """The tensors; of a file of our own the networks in it, with their family and settings.

    Raises:
        Damaged: cut off, or the header makes no sense.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise Damaged(f"a safetensors file that is cut off or inconsistent ({error})") from error
    if native.METADATA_KEY not in metadata:
        return Contents("safetensors", tensors, metadata)
    networks = native.networks(tensors, json.loads(metadata[native.METADATA_KEY]))
    return Contents("safetensors", networks, metadata)
