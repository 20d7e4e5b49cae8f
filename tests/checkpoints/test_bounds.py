"""Small files that ask for a great deal: each is read or refused within twice its size and 256 MB, measured in a process of its own."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qualitygate.checkpoints.bounds import MAX_GROUPS
from tests.checkpoints.nvidia_files import ForeignPickler, Made, Name, persistent_network

SECONDS = 120

MEASURE = """
import os, resource, sys, torch
from qualitygate.checkpoints.load import load_checkpoint
from qualitygate.errors import CheckpointError

def outcome(path):
    try:
        if path.endswith("without bounds"):
            return str(torch.load(path)[0].double())
        return str(load_checkpoint(path))
    except CheckpointError as error:
        return str(error)

warm, *files = sys.argv[1:]
outcome(warm)  # what is loaded once is not what a file takes
for path in files:
    if os.fork() == 0:
        held = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
        limit = held + 2 * os.path.getsize(path) + 256 * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            text = outcome(path)
        except (MemoryError, RuntimeError) as error:  # the latter is torch's
            text = f"out of memory: {error}"
        open(path + ".txt", "w").write(text)
        os._exit(0)
    os.wait()
"""
"""A process for each file, which is given so much and no more; all are copies of one that has loaded a checkpoint before."""


def outcomes(folder: Path, contents: dict[str, bytes]) -> dict[str, str]:
    """What becomes of each file."""
    torch.save({"w": torch.ones(1)}, folder / "warm")
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    command = [sys.executable, "-c", MEASURE, str(folder / "warm"), *(str(folder / name) for name in contents)]
    subprocess.run(command, check=True, timeout=SECONDS, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return {name: (folder / f"{name}.txt").read_text() for name in contents}


def saved(tree: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    ForeignPickler(buffer, 4).dump(value)
    return buffer.getvalue()


def groups(count: int) -> bytes:
    """So many groups of one tensor, which is the same in all: each group would know all others."""
    one = torch.ones(1)
    return saved({str(index): {"w": one} for index in range(count)})


def scalars_beside_dictionaries() -> bytes:
    """Every dictionary would take over all settings that stand beside it."""
    return pickle.dumps({**{f"s{index}": index for index in range(20_000)}, **{f"d{index}": {} for index in range(20_000)}})


def scalars_beside_groups() -> bytes:
    one = torch.ones(1)
    return saved({**{f"s{index}": index for index in range(20_000)}, **{f"d{index}": {"w": one} for index in range(5000)}})


def repeated_values() -> bytes:
    """Views of a storage of 16 bytes, each of a megabyte and more once somebody computes with it."""
    return saved({f"layer{index}.weight": torch.ones(1).expand(1024, 1024) for index in range(2000)})


def many_entries() -> bytes:
    """A zip archive with two million entries of nothing, of which only the table of contents is there."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 2_000_000
    directory = b"PK\x03\x04" + bytes(60) + entry * count
    return directory + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count % 65536, count % 65536, len(entry) * count, 64, 0)


def long_shape() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1] * 300_000, "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def wide_header() -> bytes:
    header = b"{" + b",".join(b'"%06x":{}' % index for index in range(700_000)) + b"}"
    return struct.pack("<Q", len(header)) + header


def wide_text() -> bytes:
    """A text that takes four bytes a character in memory for one in the file, again and again."""
    text = ("x" * 50_000_000 + "\U0001f600").encode()
    return b"\x80\x04" + (b"X" + struct.pack("<I", len(text)) + text) * 3 + b"\x87."


def wide_lines() -> bytes:
    return b"(" + (b"V" + b"x" * 20_000_000 + b"\\U0001f600\n") * 7 + b"l."


def empty_lists() -> bytes:
    return b"\x80\x02(" + b"]" * 890_000 + b"l."


def empty_dictionaries() -> bytes:
    return b"\x80\x02(" + b"}NNs" * 222_000 + b"l."


def marks() -> bytes:
    return b"\x80\x02" + b"(" * 440_000 + b"l" * 440_000 + b"."


def calls() -> bytes:
    return b"\x80\x02cresearch\nThing\nq\x00)q\x010(" + b"h\x00h\x01R" * 295_000 + b"l."


def calls_with_long_arguments() -> bytes:
    """One tuple of 100,000 values for 20,000 calls."""
    return b"\x80\x02cresearch\nThing\nq\x00(" + b"N" * 100_000 + b"tq\x010(" + b"h\x00h\x01R" * 20_000 + b"l."


def colliding_tuples() -> bytes:
    """Tuples as keys, of which any number with one hash can be found; these are merely many."""
    return b"\x80\x04}(" + b"".join(b"J" + struct.pack("<i", index) + b"\x85N" for index in range(140_000)) + b"u."


def tensors_of_one_storage() -> bytes:
    """One call of the function that makes tensors, again and again, on arguments that stand in the file once."""

    def text(value: bytes) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value

    reference = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + b"K\x01tQ"
    arguments = b"(" + reference + b"K\x00K\x01\x85K\x01\x85\x89Ntq\x01"
    function = b"ctorch._utils\n_rebuild_tensor_v2\nq\x00"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + function + b"0" + arguments + b"0(" + b"h\x00h\x01R" * 50_001 + b"l.")
        archive.writestr("archive/data/0", bytes(4))
    return buffer.getvalue()


def module_inside_modules() -> bytes:
    """Every level of a network repeats the names of all tensors below it."""
    one = torch.ones(1)
    network = persistent_network("Part", {}, {f"w{index}": one for index in range(3000)})
    for _ in range(30):
        state = {"_parameters": {}, "_buffers": {}, "_modules": {"a" * 10: network}}
        network = Made(Name("research", "Part"), new=True, state=state)
    return pickled({"G": network})


def long_paths() -> bytes:
    tree: object = [{"w": torch.ones(1)}] * 5000
    for _ in range(80):
        tree = {"k" * 400: tree}
    return saved(tree)


def a_network_without_tensors() -> bytes:
    return saved(torch.nn.Sequential(torch.nn.ReLU()))


def many_small_entries() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
        for index in range(20_000):
            archive.writestr(f"archive/data/{index}", b"x")
        archive.comment = b"made by hand"
    return buffer.getvalue()


def what_nobody_limits() -> bytes:
    """Weights that are there take their size, and half of them as much again: the one file here that has no more than it needs."""
    return saved({f"layer{index}.weight": torch.zeros(2**20, dtype=torch.float16) for index in range(8)})


LIMIT = "asks for more than a network needs"
NO_TENSORS = "holds no tensors"
UNKNOWN = "is not a generator we know"
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "too many groups": (lambda: groups(MAX_GROUPS + 1), f"{LIMIT}.*{MAX_GROUPS:,} groups"),
    "many groups": (lambda: groups(MAX_GROUPS), UNKNOWN),
    **{
        make.__name__: (make, expected)
        for make, expected in (
            (scalars_beside_dictionaries, NO_TENSORS),
            (scalars_beside_groups, UNKNOWN),
            (repeated_values, f"{LIMIT}.*in tensors"),
            (many_entries, f"{LIMIT}.*table of contents"),
            (long_shape, "too many dimensions"),
            (wide_header, f"{LIMIT}.*in the header"),
            (wide_text, f"{LIMIT}.*to unpack"),
            (wide_lines, f"{LIMIT}.*to unpack"),
            (empty_lists, NO_TENSORS),
            (empty_dictionaries, NO_TENSORS),
            (marks, "inside one another"),
            (calls, NO_TENSORS),
            (calls_with_long_arguments, f"{LIMIT}.*values"),
            (colliding_tuples, f"{LIMIT}.*tuples as keys"),
            (tensors_of_one_storage, f"{LIMIT}.*50,000 tensors"),
            (module_inside_modules, f"{LIMIT}.*to unpack"),
            (long_paths, f"{LIMIT}.*path"),
            (a_network_without_tensors, NO_TENSORS),
            (many_small_entries, NO_TENSORS),
            (what_nobody_limits, UNKNOWN),
        )
    },
}


SLOW = {"empty_dictionaries", "marks", "calls"}
"""Those that ask for the same as others, by other instructions, and leave more of the limit."""

WITHOUT_BOUNDS = "read without bounds"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, str]:
    """What becomes of the files that this run asks for, and of one that is read without bounds."""
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is limited as Linux does it")
    asked = {item.callspec.params["name"] for item in request.session.items if item.path == request.path and hasattr(item, "callspec")}
    contents = {name: make() for name, (make, _) in FILES.items() if name in asked}
    return outcomes(tmp_path_factory.mktemp("hostile"), contents | {WITHOUT_BOUNDS: saved([torch.ones(1).expand(2**28)])})


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FILES])
def test_files_that_ask_for_a_great_deal(found: dict[str, str], name: str) -> None:
    assert re.search(FILES[name][1], found[name], re.DOTALL), found[name]


def test_the_limit_is_one(found: dict[str, str]) -> None:
    """A file that takes what it likes does fail: read without bounds, two gigabytes of one value."""
    assert re.search("out of memory.*allocate", found[WITHOUT_BOUNDS])
