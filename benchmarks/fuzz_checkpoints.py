"""Damaged and spliced checkpoints, many of them: nothing runs, nothing hangs, and whatever is refused is refused in words.

    python benchmarks/fuzz_checkpoints.py [--files 10000] [--seed 0]

Genuine files of every kind are damaged at random: bits and bytes changed, cut off, parts moved or doubled, instructions of one pickle
spliced into another, also those that call something. Each is read, and as far as it is read, every tensor is computed with.
"""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import pickletools
import random
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors

from qualitygate.checkpoints.contents import tensor_groups
from qualitygate.checkpoints.reader import read
from qualitygate.errors import CheckpointError

SECONDS = 20.0
"""Far above what any of these files needs."""


class _Payload:
    """Touches a file when an ordinary unpickler reads it."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.sentinel}",)


def genuine(sentinel: Path) -> dict[str, bytes]:
    """Small files of every kind; pickles also with a payload, which is refused as it is and may slip past once it is damaged."""
    tensors = {"g_ema": {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "bias": torch.ones(3)}, "step": 4}
    whole, old, deflated = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(tensors, whole)
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    arrays = {"w": torch.ones(3).numpy(), "n": torch.nn.Linear(2, 3).state_dict(), "s": {1, 2}}
    pickles = {f"pickle {protocol}": pickle.dumps(arrays, protocol) for protocol in range(6)}
    hostile = {f"payload {protocol}": pickle.dumps({"w": arrays, "x": _Payload(sentinel)}, protocol) for protocol in range(6)}
    module = io.BytesIO()
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)), module, _use_new_zipfile_serialization=False)
    files = {"zip": whole, "deflated zip": deflated, "legacy": old, "module": module}
    return {
        **{name: file.getvalue() for name, file in files.items()},
        "safetensors": save_safetensors(dict(tensors["g_ema"]), {"a": "b"}),  # type: ignore[call-overload]
        **pickles,
        **hostile,
    }


def damaged(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """One file damaged in one to three ways."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3))):
        data = chance.choice((_flip, _flip, _cut, _move, _splice))(data, others, chance)
    return bytes(data)


def _flip(data: bytearray, others: list[bytes], chance: random.Random) -> bytearray:
    for _ in range(chance.choice((1, 1, 2, 8, 32))):
        if data:
            position = chance.randrange(len(data))
            data[position] = chance.choice((data[position] ^ (1 << chance.randrange(8)), chance.randrange(256), 0, 255))
    return data


def _cut(data: bytearray, others: list[bytes], chance: random.Random) -> bytearray:
    return data[: chance.randrange(len(data) + 1)]


def _move(data: bytearray, others: list[bytes], chance: random.Random) -> bytearray:
    """A part taken out, or doubled, and put somewhere."""
    if not data:
        return data
    start = chance.randrange(len(data))
    part = data[start : start + chance.choice((1, 4, 16, 256))]
    rest = data if chance.random() < 0.5 else data[:start] + data[start + len(part) :]
    position = chance.randrange(len(rest) + 1)
    return rest[:position] + part + rest[position:]


def _splice(data: bytearray, others: list[bytes], chance: random.Random) -> bytearray:
    """Some instructions of another pickle, put between two instructions of this one; where this is none, anywhere."""
    donor = chance.choice(others)
    ends = _instructions(donor)
    first = chance.randrange(len(ends) - 1)
    last = min(len(ends) - 1, first + chance.choice((1, 2, 8, 64)))
    places = _instructions(bytes(data)) or [chance.randrange(len(data) + 1)]
    place = chance.choice(places)
    return data[:place] + donor[ends[first] : ends[last]] + data[place:]


def _instructions(data: bytes) -> list[int]:
    """Where instructions begin, as far as they can be read."""
    found = []
    try:
        for _, _, position in pickletools.genops(data):
            found.append(position or 0)
    except Exception:  # a file that is no pickle, or a damaged one
        pass
    return found


def outcomes(folder: Path, files: int, seed: int) -> Iterator[tuple[str, str, float]]:
    """For each damaged file what kind it was of, what became of it, and the seconds that it took.

    Raises:
        AssertionError: something was run, or an error does not say what to do.
        Exception: whatever else escapes.
    """
    sentinel, path, chance = folder / "payload-ran", folder / "file", random.Random(seed)
    kinds = genuine(sentinel)
    pickles = [content for name, content in kinds.items() if name.startswith(("pickle", "payload"))]
    for _ in range(files):
        kind = chance.choice(list(kinds))
        path.write_bytes(damaged(kinds[kind], pickles, chance))
        start, error = time.monotonic(), None
        try:
            for group in tensor_groups(read(path)):
                for tensor in group.tensors.values():
                    tensor.to(torch.complex128).sum()
        except CheckpointError as refused:
            error = refused
        outcome = "read" if error is None else type(error).__name__
        assert error is None or all((error.what, error.found, error.needed, error.remedy)), error
        assert not sentinel.exists(), f"something in a file of kind {kind!r} was run"
        yield kind, outcome, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as name:
        for _, outcome, seconds in outcomes(Path(name), options.files, options.seed):
            counts[outcome] += 1
            slowest = max(slowest, seconds)
    print(f"{options.files:,} files: {', '.join(f'{count:,} {outcome}' for outcome, count in counts.most_common())}")
    print(f"slowest {slowest:.2f} s; nothing ran")
    sys.exit(slowest > SECONDS)


if __name__ == "__main__":
    main()
