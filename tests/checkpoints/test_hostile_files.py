"""Files made to run code or to exhaust memory or time, and damaged ones: an error says so, and nothing else happens."""

from __future__ import annotations

import gc
import io
import json
import os
import pickle
import random
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_safetensors

from qualitygate.checkpoints import bounds
from qualitygate.checkpoints.contents import tensor_groups
from qualitygate.checkpoints.reader import read
from qualitygate.errors import CheckpointError, UnsafeCheckpointError
from tests.checkpoints.nvidia_files import ForeignPickler, Made, Name, dump, persistent_network, tf_network

SECONDS_PER_FILE = 20  # far above what any of these needs; a file that hangs would need for ever


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """A file that only a payload would make."""
    path = tmp_path / "payload-ran"
    start = time.monotonic()
    yield path
    assert not path.exists(), "something in the file was run"
    assert time.monotonic() - start < SECONDS_PER_FILE


def _call(sentinel: Path) -> Made:
    return Made(Name("os", "system"), (f"touch {sentinel}",))


def _read(folder: Path, content: bytes) -> Any:
    path = folder / "file.pkl"
    path.write_bytes(content)
    return read(path).tree


def _pickled(value: Any, protocol: int = 4) -> bytes:
    buffer = io.BytesIO()
    ForeignPickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def _zipped(data: bytes, compression: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in entries.items():
            archive.writestr(f"archive/data/{name}", content)
    return buffer.getvalue()


def _legacy(data: bytes, keys: list[str] | None = None, storages: bytes = b"") -> bytes:
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join([*head, data, pickle.dumps(keys or [], 2), storages])


HOSTILE = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "eval"),
    ("importlib", "import_module"),
    ("runpy", "run_path"),
    ("pty", "spawn"),
    ("socket", "create_connection"),
    ("shutil", "rmtree"),
    ("ctypes", "CDLL"),
    ("sys", "exit"),
    ("pickle", "loads"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("numpy.testing._private.utils", "runstring"),
    ("collections", "abc.sys.modules"),
    ("pathlib", "Path.unlink"),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", [_pickled, lambda v, p: _zipped(_pickled(v, p)), lambda v, p: _legacy(_pickled(v, p))])
def test_calls_are_refused_in_every_protocol_and_packing(
    tmp_path: Path, sentinel: Path, wrap: Callable[[Any, int], bytes], protocol: int
) -> None:
    with pytest.raises(UnsafeCheckpointError, match=r"os\.system"):
        _read(tmp_path, wrap({"w": [1, _call(sentinel)]}, protocol))


def test_the_payload_would_run_elsewhere(tmp_path: Path) -> None:
    """The sentinel proves something: an ordinary unpickler does create it."""
    path = tmp_path / "ran"
    pickle.loads(_pickled(_call(path)))
    assert path.exists()


@pytest.mark.parametrize(("module", "attribute"), HOSTILE)
@pytest.mark.parametrize("protocol", [0, 4])
def test_hostile_globals_are_named(tmp_path: Path, module: str, attribute: str, protocol: int) -> None:
    with pytest.raises(UnsafeCheckpointError) as caught:
        _read(tmp_path, _pickled({"x": Name(module, attribute)}, protocol))
    assert f"{module}.{attribute}" in (caught.value.found or "")
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["dict", "list", "set", "frozenset", "bytearray", "object", "complex", "slice", "range"])
def test_harmless_builtins_are_data(tmp_path: Path, name: str) -> None:
    _read(tmp_path, _pickled({"x": Made(Name("builtins", name), ("1",) if name == "complex" else ())}))


def test_unknown_functions_are_not_imported(tmp_path: Path, sentinel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "payload_module.py").write_text(f"open({str(sentinel)!r}, 'w').close()\ndef run(*args): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    value = {"x": Made(Name("payload_module", "run"), (1,)), "y": Made(Name("payload_module", "Class"), new=True, state={"a": 1})}
    assert _read(tmp_path, _pickled(value))["y"] == {"a": 1}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nested_torch_files(tmp_path: Path, sentinel: Path, depth: int) -> None:
    content = _legacy(_pickled(_call(sentinel), 2))
    for level in range(depth):
        call = Made(Name("torch.storage", "_load_from_bytes"), (content,))
        content = _pickled(call) if level == depth - 1 else _legacy(_pickled(call, 2))
    with pytest.raises(UnsafeCheckpointError, match=r"os\.system"):
        _read(tmp_path, content)


def test_too_deeply_nested_torch_files(tmp_path: Path) -> None:
    content = _legacy(pickle.dumps(1, 2))
    for _ in range(bounds.MAX_NESTED_FILES + 1):
        content = _legacy(_pickled(Made(Name("torch.storage", "_load_from_bytes"), (content,)), 2))
    with pytest.raises(CheckpointError, match="inside one another"):
        _read(tmp_path, content)


def test_state_for_functions_we_know(tmp_path: Path, sentinel: Path) -> None:
    """BUILD on a function or class: an ordinary unpickler would set its attributes, for the whole program."""
    before = dict(vars(torch._utils._rebuild_tensor_v2))
    for target in (Name("torch._utils", "_rebuild_tensor_v2"), Name("collections", "OrderedDict"), Name("numpy", "dtype")):
        with pytest.raises(CheckpointError):
            _read(tmp_path, _pickled(target)[:-1] + _pickled({"__call__": 1, "__code__": 2})[2:-1] + b"b.")
    assert vars(torch._utils._rebuild_tensor_v2) == before


@pytest.mark.parametrize("attribute", ["__class__", "__dict__", "__setstate__", "items", "__reduce__", "__getattr__", "tensors"])
def test_attributes_set_through_state(tmp_path: Path, attribute: str) -> None:
    """State and items are kept as data; none of it becomes an attribute of our own objects."""
    state = {attribute: Name("research", "payload"), "w": torch.ones(2)}
    for name in (("collections", "OrderedDict"), ("research", "Config"), ("torch", "Tensor"), ("argparse", "Namespace")):
        for value in (Made(Name(*name), new=True, state=state), Made(Name(*name), new=True, state=(None, state))):
            tree = _read(tmp_path, _pickled({"x": value, "w": torch.ones(1)}))
            assert type(tree) is dict
            assert type(tree["x"]) is dict


def test_stored_source_code_is_not_run(tmp_path: Path, sentinel: Path) -> None:
    source = f"import os\nos.system('touch {sentinel}')\nopen({str(sentinel)!r}, 'w')\n"
    network = persistent_network("Generator", {"z_dim": 4}, {"mapping.fc0.weight": torch.ones(2, 2)}, source)
    contents = read(dump(tmp_path / "tampered.pkl", {"G_ema": network}))
    (group,) = tensor_groups(contents)
    assert torch.equal(group.tensors["mapping.fc0.weight"], torch.ones(2, 2))
    assert "touch" not in str(contents)


def test_a_call_beside_networks(tmp_path: Path, sentinel: Path) -> None:
    networks = [persistent_network("Generator", {}, {"w": torch.ones(1)}), tf_network("G_main", {}, {"w": torch.ones(1)})]
    for network in networks:
        with pytest.raises(UnsafeCheckpointError):
            read(dump(tmp_path / "tampered.pkl", (network, network, _call(sentinel))))


@pytest.mark.parametrize("code", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
def test_copyreg_extensions(tmp_path: Path, sentinel: Path, monkeypatch: pytest.MonkeyPatch, code: bytes) -> None:
    import copyreg

    monkeypatch.setitem(copyreg._inverted_registry, 1, ("os", "system"))
    payload = b"\x80\x02" + code + b"X" + struct.pack("<I", len(f"touch {sentinel}")) + f"touch {sentinel}".encode() + b"\x85R."
    with pytest.raises(UnsafeCheckpointError, match="copyreg"):
        _read(tmp_path, payload)


def test_inst_and_obj(tmp_path: Path, sentinel: Path) -> None:
    argument = f"S'touch {sentinel}'\n".encode()
    for payload in (b"(" + argument + b"ios\nsystem\n.", b"(cos\nsystem\n" + argument + b"o.", b"cos\nsystem\n(" + argument + b"tR."):
        with pytest.raises(UnsafeCheckpointError, match=r"os\.system"):
            _read(tmp_path, payload)


# beyond the limit on instructions, which `test_too_many_instructions` meets as well
@pytest.mark.parametrize("layers", [100_000, pytest.param(1_900_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("code", [b"\x85", b"]a", b"l", b"("])
def test_deep_nesting(tmp_path: Path, code: bytes, layers: int) -> None:
    body = {b"\x85": b")" + b"\x85" * layers, b"]a": b"]" * layers + b"a" * (layers - 1)}.get(code, code * layers)
    with pytest.raises(CheckpointError):
        _read(tmp_path, b"\x80\x02" + body + b".")


def test_doubling(tmp_path: Path) -> None:
    """Each list holds the one before twice: a hundred instructions for 2^90 values."""
    for grow in (b"\x86", b"}(K\x01h\x00K\x02h\x00u"):
        body = b"".join(b"q\x00h\x00" + grow if grow == b"\x86" else b"q\x000" + grow for _ in range(90))
        with pytest.raises(CheckpointError, match="more than"):
            _read(tmp_path, b"\x80\x02N" + body + b".")


def test_doubled_modules(tmp_path: Path) -> None:
    module: Any = persistent_network("Part", {}, {"w": torch.ones(1)})
    for _ in range(30):
        state = {"_parameters": {}, "_buffers": {}, "_modules": {"a": module, "b": module}}
        module = Made(Name("research", "Part"), new=True, state=state)
    with pytest.raises(CheckpointError, match="more than"):
        read(dump(tmp_path / "modules.pkl", {"G": module}))


def test_depth_that_grows_by_sharing(tmp_path: Path) -> None:
    """Each part is shallow where it is first met, and the last one is as deep as all of them together."""
    parts: list[Any] = [[]]
    for _ in range(50):
        part = parts[-1]
        for _ in range(40):
            part = [part]
        parts.append(part)
    with pytest.raises(CheckpointError, match="inside one another"):
        _read(tmp_path, pickle.dumps(parts))


def test_too_many_instructions(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="instructions"):
        _read(tmp_path, b"\x80\x02(" + b"}" * (bounds.MAX_INSTRUCTIONS + 1) + b"l.")


@pytest.mark.parametrize(
    "code",
    [
        b"\x8e" + b"\xff" * 8,
        b"\x8e" + struct.pack("<Q", 2**40),
        b"B\xff\xff\xff\xff",
        b"\x96" + struct.pack("<Q", 2**40),
        b"\x8b\xff\xff\xff\x7f",
        b"T\xff\xff\xff\x7f",
        b"X\xff\xff\xff\xff",
        b"\x95" + b"\xff" * 8,
        b"Nr\xff\xff\xff\xff",
    ],
)
def test_huge_declared_sizes(tmp_path: Path, code: bytes) -> None:
    """Byte strings, integers, texts, frames and memo positions beyond the file."""
    path = tmp_path / "huge.pkl"
    path.write_bytes(b"\x80\x04" + code + b"abc.")
    with pytest.raises(CheckpointError):
        read(path)


def test_long_names_are_not_multiplied(tmp_path: Path) -> None:
    """A text of a megabyte that many names would be made of."""
    text = "x" * 2**20
    network = tf_network("G", {}, {}).function
    variables = [(text, torch.ones(1))] * 10_000
    nested = Made(network, new=True, state={"variables": [], "components": {"a": Made(network, new=True, state={"variables": variables})}})
    for value in (nested, [Made(Name("numpy", "dtype"), ("<" + text,))] * 9, [Name(text, "Class")]):
        with pytest.raises(CheckpointError):
            _read(tmp_path, _pickled(value))


def test_long_lines_cost_no_more_than_their_length(tmp_path: Path) -> None:
    body = b"".join(b"V" + b"x" * 300 + b"\n0" for _ in range(20_000))
    assert _read(tmp_path, b"\x80\x02" + body + b"N.") is None


@pytest.mark.parametrize("key", ["list", "dict", "nested tuple", "huge integer", "long text"])
def test_keys_that_would_be_costly(tmp_path: Path, key: str) -> None:
    nested: Any = ()
    for _ in range(50):
        nested = (nested,)
    keys = {"list": [1], "dict": {}, "nested tuple": nested, "huge integer": 2**70, "long text": "x" * 1000}
    with pytest.raises(CheckpointError, match=r"neither a short text nor a number|makes no sense"):
        _read(tmp_path, b"\x80\x04}" + pickle.dumps(keys[key], 2)[2:-1] + b"Ns.")


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (-1, (2,), (1,)),
        (0, (2, 3), (2, 1)),
        (0, (2**40,), (0,)),
        (0, (2**31, 2**31), (0, 0)),
        (0, (-1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (1, 1)),
        (0, (1.5,), (1,)),
        (0, ("4",), (1,)),
        (2**63, (1,), (1,)),
        (0, (2**70,), (1,)),
        (0, (1,) * 100, (1,) * 100),
        (0, None, None),
    ],
)
def test_tensors_outside_their_storage(tmp_path: Path, offset: int, size: Any, stride: Any) -> None:
    storage = torch.arange(4.0).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    tensor = Made(Name("torch._utils", "_rebuild_tensor_v2"), (typed, offset, size, stride, False, None))
    with pytest.raises(CheckpointError):
        _read(tmp_path, _pickled(tensor))


def test_storages_shorter_than_they_say(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(64)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        data = archive.read("archive/data.pkl")
    with pytest.raises(CheckpointError, match="256 bytes, of which 8 are there"):
        _read(tmp_path, _zipped(data, **{"0": bytes(8)}))


def test_zip_bomb(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2**23)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        data = archive.read("archive/data.pkl")
    with pytest.raises(CheckpointError, match="times its own size"):
        _read(tmp_path, _zipped(data, zipfile.ZIP_DEFLATED, **{"0": bytes(2**25)}))


def test_overlapping_entries(tmp_path: Path) -> None:
    """Two entries of the table of contents that point at one place."""
    content = bytearray(_zipped(pickle.dumps({}, 2), **{"0": bytes(64)}))
    second = content.rindex(b"PK\x01\x02")
    content[second + 42 : second + 46] = bytes(4)
    with pytest.raises(CheckpointError, match="overlap"):
        _read(tmp_path, bytes(content))


def test_copies_of_one_storage_are_counted(tmp_path: Path) -> None:
    """A big-endian array of a megabyte, referred to ten thousand times."""
    data = bytes(2**20)
    kind = Made(Name("numpy", "dtype"), ("f4", False, True), (3, ">", None, None, None, -1, -1, 0))
    arrays = [
        Made(Name("numpy.core.multiarray", "_reconstruct"), (Name("numpy", "ndarray"), (0,), b"b"), (1, (2**18,), kind, False, data))
        for _ in range(10_000)
    ]
    with pytest.raises(CheckpointError, match="times its own size"):
        _read(tmp_path, _pickled(arrays))


@pytest.mark.parametrize(
    "header", [b"{", b"{}" + b" " * 100, json.dumps({"w": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 8]}}).encode()]
)
def test_safetensors_that_lie(tmp_path: Path, header: bytes) -> None:
    for length in (len(header), 2**62):
        content = struct.pack("<Q", length) + header + bytes(8)
        if header.startswith(b"{}") and length == len(header):
            content += b"more"
        with pytest.raises(CheckpointError):
            _read(tmp_path, content)


def _genuine() -> dict[str, bytes]:
    tensors = {"g_ema": {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "bias": torch.ones(3)}, "step": 4}
    as_zip, legacy = io.BytesIO(), io.BytesIO()
    torch.save(tensors, as_zip)
    torch.save(tensors, legacy, _use_new_zipfile_serialization=False)
    deflated = io.BytesIO()
    with zipfile.ZipFile(as_zip) as source, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    network = persistent_network("Generator", {"z_dim": 4}, {"mapping.fc0.weight": torch.ones(2, 2), "w_avg": torch.ones(2)})
    tf = tf_network("G_main", {"resolution": 4}, {"4x4/Const/const": torch.ones(1, 2, 4, 4), "mapping/Dense0/bias": torch.ones(2)})
    return {
        "zip": as_zip.getvalue(),
        "deflated zip": deflated.getvalue(),
        "legacy": legacy.getvalue(),
        "safetensors": save_safetensors(dict(tensors["g_ema"]), {"a": "b"}),  # type: ignore[arg-type]
        "pickle": pickle.dumps({"w": torch.ones(3), "n": torch.ones(2).numpy()}, 4),
        "old pickle": pickle.dumps({"w": torch.ones(3), "n": torch.ones(2).numpy()}, 0),
        "NVIDIA": _pickled({"G_ema": network}),
        "TensorFlow": _pickled((tf, tf, tf), 3),
    }


def _survives(path: Path, content: bytes) -> bool:
    """Whether the file is read, to the last value; anything but that and a `CheckpointError` is raised."""
    path.write_bytes(content)
    failure = None
    try:
        for group in tensor_groups(read(path)):
            for tensor in group.tensors.values():
                tensor.to(torch.complex128).sum()
    except CheckpointError as error:
        failure = error
    assert failure is None or all((failure.what, failure.found, failure.needed, failure.remedy))
    return failure is None


@pytest.mark.parametrize("kind", _genuine())
def test_cut_off_anywhere(tmp_path: Path, kind: str, sentinel: Path) -> None:
    content = _genuine()[kind]
    assert _survives(tmp_path / "whole", content)
    for end in sorted({*range(0, len(content), max(1, len(content) // 150)), *range(len(content) - 20, len(content))}):
        read_anyway = _survives(tmp_path / "cut", content[:end])
        assert not read_anyway, f"{end} of {len(content)} bytes were taken for the whole file"


@pytest.mark.parametrize("kind", _genuine())
def test_random_damage(tmp_path: Path, kind: str, sentinel: Path) -> None:
    content, chance = _genuine()[kind], random.Random(kind)
    end = time.monotonic() + 1.5
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 8))):
            position = chance.randrange(len(damaged))
            damaged[position] = chance.choice((damaged[position] ^ (1 << chance.randrange(8)), chance.randrange(256)))
        _survives(tmp_path / "damaged", bytes(damaged))
        if time.monotonic() > end:
            break


def test_random_pickles(tmp_path: Path, sentinel: Path) -> None:
    """Random instructions, not only damaged ones."""
    chance = random.Random(0)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        body = chance.randbytes(chance.randrange(60))
        _survives(tmp_path / "random", b"\x80\x04" + body + b".")


def test_nothing_stays_open(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("no list of open files on this system")
    torch.save({"w": torch.ones(4)}, tmp_path / "model.pt")
    gc.collect()  # what earlier tests left
    before = len(os.listdir(folder))
    contents = [read(tmp_path / "model.pt") for _ in range(20)]
    del contents
    assert len(os.listdir(folder)) == before
