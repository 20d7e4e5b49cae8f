"""Genuine files of every kind are read back as they were written."""

from __future__ import annotations

import argparse
import json
import pickle
import tarfile
import time
import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup, tensor_groups
from qualitygate.checkpoints.reader import read
from qualitygate.checkpoints.reader.values import Opaque
from qualitygate.errors import CheckpointError
from tests.checkpoints.nvidia_files import Made, Name, dump, easy_dict, tf_network, write_nvidia_pickle, write_tf_pickle
from tests.reference import vectors


def _weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    return {
        "plain": base,
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "expanded": base[:, :1].expand(4, 9),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        **{
            str(dtype): torch.arange(5).to(dtype)
            for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
        },
        **{str(dtype): torch.arange(5).to(dtype) for dtype in (torch.int8, torch.uint8, torch.complex64, torch.uint16)},
        "bool": torch.tensor([True, False]),
    }


def _check(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_torch_save(tmp_path: Path, as_zip: bool, protocol: int) -> None:
    path = tmp_path / "model.bin"
    torch.save(_weights(), path, pickle_protocol=protocol, _use_new_zipfile_serialization=as_zip)
    contents = read(path)
    assert contents.format == ("torch zip archive" if as_zip else "torch legacy file")
    _check(contents.tree, _weights())


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickle(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "weights"
    path.write_bytes(pickle.dumps(OrderedDict(_weights()), protocol))
    contents = read(path)
    assert contents.format == "pickle"
    _check(contents.tree, _weights())


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_keep_their_kind(tmp_path: Path, protocol: int) -> None:
    value = {
        "list": [1, -1, 2**40, 1.5, True, None, "text é", b"bytes", b""],
        "tuple": ((), (1,), (1, 2, 3, 4)),
        "set": {3},
        "numpy": np.float32(0.5),
        "int": np.int64(7),
        7: "number",
    }
    path = tmp_path / "values"
    path.write_bytes(pickle.dumps(value, protocol))
    assert read(path).tree == {**value, "set": [3], "numpy": 0.5, "int": 7}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("spelling", ["numpy.core", "numpy._core"])
def test_numpy_arrays(tmp_path: Path, protocol: int, spelling: str) -> None:
    arrays = {
        "c": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "big": np.arange(4, dtype=">f4"),
        "empty": np.zeros((0, 2), np.float32),
        "zero-dimensional": np.array(3),
        "bool": np.array([True, False]),
    }
    written = pickle.dumps(arrays, protocol)
    if protocol < 4:  # names in text, which may be of any length
        written = written.replace(b"numpy._core", spelling.encode())
    path = tmp_path / "arrays"
    path.write_bytes(written)
    tree = read(path).tree
    for name, array in arrays.items():
        assert torch.equal(tree[name], torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))), name


def test_texts_in_numpy_are_inert_and_objects_refused(tmp_path: Path) -> None:
    path = tmp_path / "arrays"
    path.write_bytes(pickle.dumps({"names": np.array(["a", "bc"])}))
    assert isinstance(read(path).tree["names"], Opaque)
    path.write_bytes(pickle.dumps({"things": np.array([{}, None], dtype=object)}))
    with pytest.raises(CheckpointError, match="no plain numbers"):
        read(path)


def test_tensors_saved_on_a_gpu_are_read_on_the_cpu(tmp_path: Path) -> None:
    """The device stands in the reference to the storage as text; rewritten here, as there may be no GPU."""
    for as_zip in (True, False):
        buffer = BytesIO()
        torch.save({"w": torch.arange(3.0)}, buffer, _use_new_zipfile_serialization=as_zip)
        written = buffer.getvalue()
        path = tmp_path / "gpu.pt"
        if as_zip:
            with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
                for name in source.namelist():
                    target.writestr(name, source.read(name).replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:7"))
        else:
            path.write_bytes(written.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:7"))
        assert b"cuda:7" in path.read_bytes()
        tensor = read(path).tree["w"]
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, torch.arange(3.0))


def test_compressed_archive(tmp_path: Path) -> None:
    buffer = BytesIO()
    torch.save(_weights(), buffer)
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    _check(read(path).tree, _weights())


def test_shared_storage_stays_shared(tmp_path: Path) -> None:
    base = torch.zeros(8)
    torch.save({"a": base[:4], "b": base[2:]}, tmp_path / "shared.pt")
    tree = read(tmp_path / "shared.pt").tree
    tree["a"][2] = 5
    assert tree["b"][0] == 5
    assert read(tmp_path / "shared.pt").tree["b"][0] == 0, "the file itself is never changed"


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_whole_modules(tmp_path: Path, as_zip: bool) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.BatchNorm1d(3)))
    torch.save({"netG": module}, tmp_path / "module.pt", _use_new_zipfile_serialization=as_zip)
    (group,) = tensor_groups(read(tmp_path / "module.pt"))
    assert (group.path, group.kind) == ("netG", "Sequential")
    _check(dict(group.tensors), dict(module.state_dict()))


def test_training_checkpoint_with_a_namespace(tmp_path: Path) -> None:
    """As rosinality's training writes it: the arguments are an object, and data."""
    recorded = vectors.load("rosinality_stylegan2_r32").under("state_dict/")
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], lr=0.002)
    parameter.sum().backward()
    optimizer.step()
    checkpoint = {"g_ema": recorded, "g_optim": optimizer.state_dict(), "args": argparse.Namespace(size=32, channel=2)}
    torch.save(checkpoint, tmp_path / "010000.pt")
    contents = read(tmp_path / "010000.pt")
    assert contents.tree["args"] == {"size": 32, "channel": 2}
    assert contents.tree["g_optim"]["param_groups"][0]["lr"] == 0.002
    group = tensor_groups(contents)[0]
    assert group.path == "g_ema"
    assert group.settings["args"] == {"size": 32, "channel": 2}
    _check(dict(group.tensors), recorded)


def test_objects_of_unknown_classes(tmp_path: Path) -> None:
    config = Made(Name("models.utils.config", "BaseConfig"), new=True, state={"dim": 512, "sizes": [4, 8]})
    slots = Made(Name("research", "Slotted"), new=True, state=(None, {"dim": 3}))
    old = Made(Name("copy_reg", "_reconstructor"), (Name("research", "Old"), Name("__builtin__", "object"), None), {"dim": 2})
    enum = Made(Name("research", "Mode"), ("fast",))
    value = {"config": config, "slots": slots, "old": old, "enum": enum, "class": Name("research", "Net"), "easy": easy_dict(a=1)}
    tree = read(dump(tmp_path / "objects", value, 2)).tree
    assert tree == {
        "config": {"dim": 512, "sizes": [4, 8]},
        "slots": {"dim": 3},
        "old": {"dim": 2},
        "enum": Opaque("research.Mode"),
        "class": Opaque("research.Net"),
        "easy": {"a": 1},
    }


def test_an_object_that_holds_itself(tmp_path: Path) -> None:
    value: dict[str, object] = {"w": torch.ones(2)}
    value["me"] = value
    path = tmp_path / "cycle"
    path.write_bytes(pickle.dumps(value))
    assert isinstance(read(path).tree["me"], Opaque)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nvidia_networks(tmp_path: Path, protocol: int) -> None:
    recorded = vectors.load("nvlabs_stylegan2_r32_skip")
    generator, discriminator = recorded.under("state_dict/"), recorded.under("disc/state_dict/")
    networks = {
        "G": ("Generator", recorded.settings(), {name: tensor + 1 for name, tensor in generator.items()}),
        "D": ("Discriminator", recorded.settings("discriminator_kwargs"), discriminator),
        "G_ema": ("Generator", recorded.settings(), generator),
    }
    contents = read(write_nvidia_pickle(tmp_path / "network-snapshot-000100.pkl", networks, protocol))
    assert contents.format == "pickle (NVIDIA networks)"
    groups = {group.path: group for group in tensor_groups(contents)}
    assert list(groups) == ["G_ema", "G", "D"], "the averaged generator first"
    assert groups["G_ema"].kind == "Generator"
    assert groups["G_ema"].settings == {"init_args": [], "init_kwargs": recorded.settings()}
    for name, (_, _, tensors) in networks.items():
        assert groups[name].tensors.keys() == tensors.keys()
        assert all(torch.equal(groups[name].tensors[key], tensor) for key, tensor in tensors.items())
    assert contents.tree["training_set_kwargs"] == {"class_name": "training.dataset.ImageFolderDataset"}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_tf_networks(tmp_path: Path, protocol: int) -> None:
    tensors = {
        "dlatent_avg": torch.randn(8),
        "lod": torch.tensor(0.0),
        "mapping/Dense0/weight": torch.randn(8, 8),
        "4x4/Const/const": torch.randn(1, 8, 4, 4),
        "8x8/Conv0_up/weight": torch.randn(3, 3, 8, 8),
    }
    settings = {"resolution": 8, "num_channels": 3, "fmap_base": 16}
    networks = {
        "G": ("G_main", settings, {name: tensor + 1 for name, tensor in tensors.items()}),
        "D": ("D_stylegan2", settings, {"8x8/FromRGB/weight": torch.randn(1, 1, 3, 8)}),
        "Gs": ("G_main", settings, tensors),
    }
    contents = read(write_tf_pickle(tmp_path / "stylegan2.pkl", networks, protocol))
    assert contents.format == "pickle (TensorFlow-era NVIDIA networks)"
    groups = {group.path: group for group in tensor_groups(contents)}
    assert list(groups) == ["Gs", "G", "D"]
    assert (groups["Gs"].kind, groups["D"].kind) == ("G_main", "D_stylegan2")
    assert groups["Gs"].settings == settings
    for name, (_, _, expected) in networks.items():
        assert groups[name].tensors.keys() == expected.keys()
        assert all(torch.equal(groups[name].tensors[key], tensor) for key, tensor in expected.items())


def test_pggan_class_name(tmp_path: Path) -> None:
    network = tf_network("G_paper", {}, {"4x4/Dense/weight": torch.ones(2, 32)}, Name("tfutil", "Network"))
    groups = tensor_groups(read(dump(tmp_path / "pggan.pkl", (network, network, network), 3)))
    assert groups[0].path == "Gs"
    assert groups[0].tensors["4x4/Dense/weight"].shape == (2, 32)


def test_safetensors(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(4)}
    save_file(tensors, tmp_path / "model", {"note": "text"})
    contents = read(tmp_path / "model")
    assert (contents.format, contents.metadata) == ("safetensors", {"note": "text"})
    assert contents.tree.keys() == tensors.keys()
    assert all(torch.equal(contents.tree[name], tensor) for name, tensor in tensors.items())


def test_our_own_safetensors(tmp_path: Path) -> None:
    stored = {"format": 1, "family": "dcgan", "settings": {"latent_size": 2}}
    save_file({"a": torch.ones(2)}, tmp_path / "own.safetensors", {"qualitygate": json.dumps(stored)})
    tree = read(tmp_path / "own.safetensors").tree
    assert isinstance(tree, TensorGroup)
    assert tree.settings == {"qualitygate": stored}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_hugging_face_folder(tmp_path: Path, name: str) -> None:
    tensors = {"generator.weight": torch.randn(3)}
    if name == "model.safetensors":
        save_file(tensors, tmp_path / name)
    else:
        torch.save(tensors, tmp_path / name)
    (tmp_path / "config.json").write_text('{"model_type": "biggan"}')
    contents = read(tmp_path)
    (group,) = tensor_groups(contents)
    assert contents.format == "Hugging Face folder"
    assert group.settings == {"model_type": "biggan"}
    _check(dict(group.tensors), tensors)


def test_a_tar_archive_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    """As torch wrote them in 2017."""
    with tarfile.open(tmp_path / "oldest.t7", "w:", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("storages"), BytesIO())
    with pytest.raises(CheckpointError, match=r"(?s)is a tar archive.*load it with torch and save the state dict again"):
        read(tmp_path / "oldest.t7")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "pickle"])
def test_large_files_are_quick_and_held_once(tmp_path: Path, kind: str) -> None:
    resource = pytest.importorskip("resource")
    tensors = {str(index): torch.zeros(2**20) for index in range(16)}
    path = tmp_path / "large"
    if kind == "safetensors":
        save_file(tensors, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({name: tensor.numpy() for name, tensor in tensors.items()}))
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    tree = read(path).tree
    assert time.perf_counter() - start < 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert len(tree) == 16
    assert grown < 2.2 * path.stat().st_size, "the file's own pages once, and at most one copy"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "0 bytes"),
        (b"\n<!DOCTYPE html><html><body>Quota exceeded", "DOCTYPE html"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
        (b"\x1f\x8b\x08\x00" + bytes(40), "gzip-compressed data (1f 8b 08 00"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "a PNG image"),
        (b"Lorem ipsum dolor sit amet", "text (4c 6f"),
        (bytes(range(200, 256)), "unknown bytes (c8 c9"),
        (b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}", "a pickle (80 04"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert "file.pt" in caught.value.what
    assert found in (caught.value.found or "")
    assert caught.value.needed
    assert caught.value.remedy


def test_zip_that_is_not_torchs(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("images/0.png", b"x")
    with pytest.raises(CheckpointError, match=r"a zip archive that torch did not write: .* begins with 'images/0.png'"):
        read(tmp_path / "images.zip")


def test_no_such_file_and_folders_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read(tmp_path / "missing.pt")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(CheckpointError, match=r"notes\.txt") as caught:
        read(tmp_path)
    assert "config.json" in (caught.value.needed or "")
