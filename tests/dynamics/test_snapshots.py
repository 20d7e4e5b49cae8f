"""Which snapshots there are, and in what order."""

from __future__ import annotations

from pathlib import Path

import pytest
from dynamics.snapshots import write

from qualitygate.errors import InputError
from qualitygate.studies.dynamics.run import Snapshot, find_snapshots, in_order, progress_in


@pytest.mark.parametrize(
    ("name", "progress"),
    [
        ("network-snapshot-000200.pkl", (200, "kimg")),
        ("network-snapshot-256x256-001000.pkl", (1000, "kimg")),
        ("karras2018iclr-6000kimg.pkl", (6000, "kimg")),
        ("kimg12.5.safetensors", (12.5, "kimg")),
        ("epoch=3-step=400.ckpt", (400, "step")),
        ("gan_iter_70000.pt", (70000, "step")),
        ("550000.pt", (550000, "step")),
        ("net_v2_0300.pth", (300, "step")),
        ("final.pt", None),
    ],
)
def test_progress_in_names(name: str, progress: tuple[float, str] | None) -> None:
    assert progress_in(name) == progress


def test_order_of_training_whatever_the_order_given(tmp_path: Path) -> None:
    paths = [str(write(tmp_path, kimg)) for kimg in (200, 9, 30)]
    (tmp_path / "resume.pt").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    expected = [(9, "kimg"), (30, "kimg"), (200, "kimg")]
    for sources in (paths, [str(tmp_path)], [str(tmp_path / "net-*.safetensors")], [str(tmp_path), paths[1]]):
        assert [(one.at, one.unit) for one in find_snapshots(sources)] == expected


def test_metadata_goes_before_the_name(tmp_path: Path) -> None:
    path = write(tmp_path, 40)
    moved = path.rename(tmp_path / "step-7.safetensors")
    assert [(one.at, one.unit) for one in find_snapshots([str(moved)])] == [(40, "kimg")]
    moved.write_bytes(moved.read_bytes()[:20])  # unreadable: the name is all there is
    assert [(one.at, one.unit) for one in find_snapshots([str(moved)])] == [(7, "step")]


def test_addresses_stand_for_themselves() -> None:
    found = find_snapshots(["https://host/runs/network-snapshot-000400.pkl#sha256=12", "hf://me/gan/step_9.pt"][:1])
    assert found == [Snapshot("https://host/runs/network-snapshot-000400.pkl#sha256=12", 400, "kimg")]
    assert found[0].name == "network-snapshot-000400.pkl"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no snapshots"),
        (["last.pt"], "does not say how far"),
        (["a-10.pt", "b-10.pt"], "same step"),
        (["step-10.pt", "kimg-20.pt"], "cannot be put in order"),
    ],
)
def test_what_cannot_be_ordered_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        find_snapshots([str(tmp_path)])


def test_a_snapshot_given_twice_counts_once() -> None:
    one = Snapshot("a-1.pt", 1, "step")
    assert in_order([one, one]) == [one]
