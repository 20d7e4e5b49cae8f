"""How a checkpoint file is packed, recognised by its own bytes and read as data.

Nothing that a file holds or names is ever imported or called: pickles run on our own machine, which only makes records.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path

from torch import Tensor

from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.packing import recognise
from qualitygate.checkpoints.packing.bounds import MAX_CONFIG, Budget, over_limit
from qualitygate.checkpoints.packing.pickle_file import read_pickle
from qualitygate.checkpoints.packing.records import Damaged
from qualitygate.checkpoints.packing.safetensors_file import is_safetensors, read_safetensors
from qualitygate.checkpoints.packing.tar_file import is_tar, read_tar
from qualitygate.checkpoints.packing.torch_file import is_archive, is_legacy, read_archive, read_legacy
from qualitygate.errors import CheckpointError, QualityGateError

_READABLE = "a safetensors file, a file of torch.save, a network pickle of NVIDIA's, or a Hugging Face folder"
WEIGHTS_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""Weights of a Hugging Face folder, beside its ``config.json``."""
_START = 512  # bytes that tell what a file is


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
    if is_safetensors(source):
        return read_safetensors(path)
    budget = Budget(len(source))
    if is_archive(source):
        return Contents("torch zip archive", read_archive(source, budget))
    if is_legacy(source):
        return Contents("torch legacy file", read_legacy(source, budget))
    if is_tar(source):
        return Contents("torch legacy file", read_tar(source, budget))
    if recognise.may_be_pickle(start):
        return read_pickle(source, budget)
    raise Damaged("a kind of file that is no checkpoint")


def _refuse_early(path: Path, start: bytes) -> None:
    """Files that are no checkpoints at all, told apart because the remedy is another one."""
    if not start:
        raise CheckpointError(f"{path.name} is empty", "0 bytes", _READABLE, "copy or download the file again")
    if recognise.is_web_page(start):
        raise CheckpointError(
            f"{path.name} is a web page",
            f"text that begins with {start.strip()[:40]!r}",
            _READABLE,
            "download it again: the server sent a page (a login, a warning, an error) in place of the file",
        )
    if recognise.is_pointer(start):
        raise CheckpointError(
            f"{path.name} is a Git LFS pointer", recognise.described(start), _READABLE, "fetch the file itself with `git lfs pull`"
        )


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
    if config.stat().st_size > MAX_CONFIG:
        raise over_limit("bytes of config.json", MAX_CONFIG)
    settings, tree = json.loads(config.read_text(encoding="utf-8")), _read_file(weights).tree
    tensors = {name: value for name, value in tree.items() if isinstance(value, Tensor)} if isinstance(tree, dict) else {}
    if not isinstance(settings, dict) or not tensors:
        raise Damaged("a folder whose config.json or weights are not a dictionary")
    return Contents("Hugging Face folder", TensorGroup("", tensors, settings))


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = str(error) if isinstance(error, Damaged) else "contents that contradict themselves"
    looks = ""
    if path.is_file():
        with path.open("rb") as file:
            looks = f"{recognise.described(file.read(_START))}: "
    return CheckpointError(
        f"{path.name} cannot be read as a checkpoint",
        looks + reason,
        _READABLE,
        "compare size and checksum with the original's; copy or download it again; unpack it if it is compressed",
    )
