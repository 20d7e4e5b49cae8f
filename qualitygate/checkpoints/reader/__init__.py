"""How a checkpoint file is packed, recognised by its own bytes and read as data.

Nothing that a file holds or names is ever imported or called: see `unpickler`. ``torch.load(weights_only=True)`` is not used: it reads
neither NVIDIA's networks nor the arguments in a training checkpoint, and holds none of the limits in `bounds`.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path

from torch import Tensor

from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.reader.bounds import MAX_JSON, Damaged, over_limit
from qualitygate.checkpoints.reader.files import ZIP_SIGNATURE, read_bytes
from qualitygate.errors import CheckpointError, QualityGateError

_READABLE = "a safetensors file, a file of torch.save, a network pickle of NVIDIA's, or a Hugging Face folder"
WEIGHTS_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""Weights of a Hugging Face folder, beside its ``config.json``."""
_START = 512  # bytes that tell what a file is
_POINTER = b"version https://git-lfs"
_SIGNATURES = (
    (_POINTER, "a Git LFS pointer, which stands for a file that was not fetched"),
    (ZIP_SIGNATURE, "a zip archive"),
    (b"PK", "a zip archive without files, or a part of one"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"7z\xbc\xaf", "a 7-zip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"GGUF", "a GGUF model"),
    (b"\x80", "a pickle"),
    (b"{", "JSON text"),
)
_WEB_PAGES = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--")


def read(path: str | Path) -> Contents:
    """Read a checkpoint file, or a Hugging Face folder, as data.

    Tensors are on the CPU whatever device they were saved from, and are mapped from the file where it has their bytes
    as they are; changing them does not change the file.

    Raises:
        CheckpointError: no such file, empty, cut off, damaged, of an unknown kind, or beyond the limits in `bounds`.
        UnsafeCheckpointError: the file names something that it would run, e.g. ``os.system``. Nothing was run.
    """
    path = Path(path)
    try:
        return _read_folder(path) if path.is_dir() else _read_file(path)
    except QualityGateError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be opened", error.strerror or str(error), "a file that can be read", "check the path and its permissions"
        ) from error
    except Exception as error:  # a damaged file may break any assumption on the way
        raise _unreadable(path, error) from error


def _read_file(path: Path) -> Contents:
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is not a file", "a device or a pipe", _READABLE, "copy its contents to a file first")
    with path.open("rb") as file:
        start = file.read(_START)
        _refuse_early(path, start)
        source = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    return read_bytes(path, source)


def _refuse_early(path: Path, start: bytes) -> None:
    """Files that are no checkpoints at all, or none any more, told apart because the remedy is another one."""
    if not start:
        kind, found, remedy = "empty", "0 bytes", "copy or download the file again"
    elif _is_web_page(start):
        kind, found = "a web page", f"text that begins with {start.strip()[:40]!r}"
        remedy = "download it again: the server sent a page (a login, a warning, an error) in place of the file"
    elif start.startswith(_POINTER):
        kind, found, remedy = "a Git LFS pointer", _described(start), "fetch the file itself with `git lfs pull`"
    elif start[257:262] == b"ustar":
        kind, found = "a tar archive", "what torch wrote before version 0.1.10, or somebody's packed files"
        remedy = "unpack it; if torch wrote it, load it with torch and save the state dict again"
    else:
        return
    raise CheckpointError(f"{path.name} is {kind}", found, _READABLE, remedy)


def _read_folder(path: Path) -> Contents:
    config = path / "config.json"
    weights = next((path / name for name in WEIGHTS_IN_FOLDER if (path / name).is_file()), None)
    if not config.is_file() or weights is None:
        names = sorted(entry.name for entry in path.iterdir())
        raise CheckpointError(
            f"{path} is a folder, but not a Hugging Face model",
            ", ".join(names[:8]) + (" …" if len(names) > 8 else "") or "nothing in it",
            f"config.json and one of {', '.join(WEIGHTS_IN_FOLDER)}",
            "name the checkpoint file itself",
        )
    if config.stat().st_size > MAX_JSON:
        raise over_limit("bytes of config.json", MAX_JSON)
    settings, tree = json.loads(config.read_text(encoding="utf-8")), _read_file(weights).tree
    tensors = {name: value for name, value in tree.items() if isinstance(value, Tensor)} if isinstance(tree, dict) else {}
    if not isinstance(settings, dict) or not tensors:
        raise Damaged("a folder whose config.json or weights are not a dictionary")
    return Contents("Hugging Face folder", TensorGroup("", tensors, settings))


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    found = str(error) if isinstance(error, Damaged) else "contents that contradict themselves"
    if path.is_file():
        with path.open("rb") as file:
            found = f"{_described(file.read(_START))}: {found}"
    return CheckpointError(
        f"{path.name} cannot be read as a checkpoint",
        found,
        _READABLE,
        "compare size and checksum with the original's; copy or download it again; unpack it if it is compressed",
    )


def _described(start: bytes) -> str:
    """The kind of file that begins like this, and its first bytes, e.g. ``"gzip-compressed data (1f 8b 08 00 …)"``."""
    if _is_web_page(start):
        return "a web page"
    kind = next((kind for signature, kind in _SIGNATURES if start.startswith(signature)), None)
    if kind is None:
        kind = "text" if start.isascii() and start.decode("ascii").isprintable() else "unknown bytes"
    return f"{kind} ({start[:8].hex(' ')} …)"


def _is_web_page(start: bytes) -> bool:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_WEB_PAGES)
