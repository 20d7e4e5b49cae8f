"""How a checkpoint file is packed, recognised by its own bytes and read as data: nothing a file holds or names is ever imported or called."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.layouts.native import METADATA_KEY
from qualitygate.checkpoints.packing.bounds import Budget
from qualitygate.checkpoints.packing.machine import Machine
from qualitygate.checkpoints.packing.records import Damaged, Opaque
from qualitygate.checkpoints.packing.torch_file import is_legacy, nested_reader, read_archive, read_legacy
from qualitygate.checkpoints.packing.values import Values
from qualitygate.errors import CheckpointError


def read(path: str | Path) -> Contents:
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if not path.is_file() or not path.stat().st_size:
        raise CheckpointError(f"No such file: {path}")
    with path.open("rb") as file:
        source = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    try:
        return _read(path, source)
    except (Damaged, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path.name} cannot be read", str(error)) from error


def _read(path: Path, source: memoryview) -> Contents:
    budget = Budget()
    if source[:4] == b"PK\x03\x04":
        return Contents("torch zip archive", read_archive(source, budget))
    if source[8:9] == b"{":
        return _safetensors(path)
    if is_legacy(source):
        return Contents("torch legacy file", read_legacy(source, budget))
    machine = Machine(source, 0, budget)
    values = Values(lambda reference: Opaque("a reference"), nested_reader(budget), budget)
    tree = values.value(machine.result)
    if "tensorflow" in values.eras:
        if isinstance(tree, (tuple, list)) and len(tree) == 3:
            tree = dict(zip(("G", "D", "Gs"), tree, strict=True))
        return Contents("pickle (TensorFlow-era NVIDIA networks)", tree)
    return Contents("pickle (NVIDIA networks)" if "persistence" in values.eras else "pickle", tree)


def _safetensors(path: Path) -> Contents:
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    tree: Any = tensors
    if METADATA_KEY in metadata:
        tree = TensorGroup("", tensors, {METADATA_KEY: json.loads(metadata[METADATA_KEY])})
    return Contents("safetensors", tree, metadata)


def _folder(path: Path) -> Contents:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / "config.json").is_file() and (path / name).is_file():
            tree = read(path / name).tree
            return Contents(
                "Hugging Face folder", TensorGroup("", tree, json.loads((path / "config.json").read_text()))
            )
    raise CheckpointError(f"{path} is not a Hugging Face folder")
