"""A whole run: holes in it, growth, resumption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from studies.dynamics.snapshots import made, pixels, write

from qualitygate.checkpoints.load import load_checkpoint
from qualitygate.errors import InputError
from qualitygate.features.images import digits_images
from qualitygate.features.module import ModuleExtractor
from qualitygate.studies.dynamics import Alarm, ScoringSettings
from qualitygate.studies.dynamics.pattern import find_neuron, pattern_column
from qualitygate.studies.dynamics.run import AgainstReal, Snapshot, find_snapshots, in_order, progress_in, score_snapshots

SETTINGS = ScoringSettings(layers=(1, 3), early=(1,), samples=3, rate_samples=64, metric_samples=5)
DIGITS = Path(__file__).parents[2] / "data" / "digits"


class Loading:
    """Loads, and remembers what."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, snapshot: Snapshot):
        self.names.append(snapshot.name)
        return load_checkpoint(snapshot.source)


def scored(folder: Path, settings: ScoringSettings = SETTINGS, **more):
    return score_snapshots(find_snapshots([str(folder)]), settings, Loading(), **more)


def test_the_same_latents_through_every_snapshot(tmp_path: Path) -> None:
    for kimg in (0, 100, 200):
        write(tmp_path, kimg)
    write(tmp_path, 300, made(3.0))  # the weights of 200 again
    curve = scored(tmp_path)
    found = curve.record([Alarm(metric="dynamics/cla_mean/layer_3", factor=1.5, within=200)])
    assert [one.at for one in found.snapshots] == [0, 100, 200, 300]
    assert found.unit == "kimg"
    alike = [
        {name: value for name, value in one.metrics.items() if "rate_change" not in name and "born" not in name and "gone" not in name}
        for one in found.snapshots
    ]
    assert alike[2] == alike[3]
    assert alike[0] != alike[1]
    assert found.snapshots[3].metrics["dynamics/low_rate_born/layer_1"] == 0.0
    assert "dynamics/units_against_realism/layer_3" in found.snapshots[0].metrics
    assert set(found.rising) == {1, 3}
    assert all("dynamics/cla_mean/layer_3" in one for one in found.alarms)


def test_a_hole_in_the_middle_is_said_and_stepped_over(tmp_path: Path) -> None:
    paths = [write(tmp_path, kimg) for kimg in (0, 1, 2, 3)]
    snapshots = find_snapshots([str(path) for path in paths])
    paths[1].write_bytes(paths[1].read_bytes()[:400])
    paths[2].unlink()
    curve = score_snapshots(snapshots, SETTINGS, Loading())
    assert [one.scores is None for one in curve.snapshots] == [False, True, True, False]
    found = curve.record()
    assert found.snapshots[1].error
    assert found.snapshots[1].metrics == {}
    assert "dynamics/low_rate_born/layer_1" in found.snapshots[3].metrics  # against the last one that there is


def test_layers_appear_while_it_grows(tmp_path: Path) -> None:
    write(tmp_path, 0, made(units=(5, 4), lod=1.0))
    write(tmp_path, 1)
    small, grown = scored(tmp_path).snapshots
    assert small.scores is not None
    assert grown.scores is not None
    assert set(small.scores.sample_cla) == {1}
    assert set(grown.scores.sample_cla) == {1, 3}
    tracked = find_neuron(load_checkpoint(grown.snapshot.source).generator, [small.scores, grown.scores], SETTINGS)
    assert tracked.neuron.layer == 3
    column = pattern_column(load_checkpoint(grown.snapshot.source).generator, tracked, SETTINGS, "1 kimg")
    assert column.unit_score.shape == (8, 8)
    assert column.image.shape == (8, 8, 1)
    with pytest.raises(InputError):
        pattern_column(load_checkpoint(small.snapshot.source).generator, tracked, SETTINGS, "0 kimg")


def test_other_latents_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path, 0)
    write(tmp_path, 1, made(latent_size=6))
    curve = scored(tmp_path)
    assert curve.snapshots[0].error is None
    assert "6 numbers" in (curve.snapshots[1].error or "")


def test_nothing_is_scored_twice(tmp_path: Path) -> None:
    folder, store = tmp_path / "run", tmp_path / "scores"
    folder.mkdir()
    write(folder, 0)
    first = scored(folder, store=store)
    write(folder, 1)
    snapshots, loading = find_snapshots([str(folder)]), Loading()
    again = score_snapshots(snapshots, SETTINGS, loading, store=store)
    assert loading.names == [snapshots[1].name]
    assert again.record().snapshots[0] == first.record().snapshots[0]

    other: list[dict] = [{"settings": SETTINGS.model_copy(update={"seed": 2})}, {"metrics": mean}, {"metrics": mean, "metrics_key": "b"}]
    for more in other:
        loading = Loading()
        score_snapshots(snapshots, **{"settings": SETTINGS, **more}, load=loading, store=store)
        assert len(loading.names) == 2

    for path in store.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])  # cut off: scored again
    loading = Loading()
    with pytest.warns(UserWarning, match="cannot be read and is computed anew"):
        repaired = score_snapshots(snapshots, SETTINGS, loading, store=store)
    assert len(loading.names) == 2
    assert repaired.record() == again.record()


def mean(images: torch.Tensor) -> dict[str, float]:
    assert images.shape == (5, 1, 8, 8)
    return {"mean": float(images.mean())}


def test_set_metrics_by_name(tmp_path: Path) -> None:
    write(tmp_path, 0)
    found = scored(tmp_path, metrics=mean).record()
    assert -1.0 <= found.snapshots[0].metrics["dynamics/mean"] <= 1.0


def test_realism_against_real_images(tmp_path: Path) -> None:
    """More and more noise is less and less like the digits; the real images themselves are as real as can be."""
    real = digits_images(8)
    quality = AgainstReal(real, ModuleExtractor(pixels, "pixels", size=8))
    images = torch.cat(list(real))
    found = [quality(images + noise * torch.randn_like(images)) for noise in (0.05, 0.3, 1.0)]
    assert [one["realism"] for one in found] == sorted((one["realism"] for one in found), reverse=True)
    assert [one["kid"] for one in found] == sorted(one["kid"] for one in found)
    assert found[0]["fid"] < found[2]["fid"]
    assert quality.key == AgainstReal(real, ModuleExtractor(pixels, "pixels", size=8)).key


def test_none_can_be_scored(tmp_path: Path) -> None:
    (tmp_path / "a-1.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="No snapshot could be scored"):
        scored(tmp_path)
    write(tmp_path, 5)
    with pytest.raises(InputError, match="none of the layers"):
        score_snapshots(find_snapshots([str(tmp_path / "net*")]), ScoringSettings(layers=(9,)), Loading())


@pytest.mark.parametrize(("layer", "unit", "message"), [(0, None, "CLA of this layer"), (3, 2, "no such unit")])
def test_a_unit_that_cannot_be_followed(tmp_path: Path, layer: int, unit: int | None, message: str) -> None:
    write(tmp_path, 0)
    (one,) = scored(tmp_path).snapshots
    assert one.scores is not None
    with pytest.raises(InputError, match=message):
        find_neuron(load_checkpoint(one.snapshot.source).generator, [one.scores], SETTINGS, layer, unit)


def test_real_snapshots() -> None:
    """Digits, early, middle and converged: seen on all ten snapshots, and again on these three."""
    settings = ScoringSettings(samples=2, axes=16, rate_samples=512)
    early, middle, last = scored(DIGITS, settings).record().snapshots
    assert [early.at, middle.at, last.at] == [3.008, 24, 96]
    low = [one.metrics["dynamics/low_rate_share/layer_1"] for one in (early, middle, last)]
    assert low == sorted(low)
    relative = [one.metrics["dynamics/cla_mean/layer_3"] / one.metrics["dynamics/activation_scale/layer_3"] for one in (middle, last)]
    assert relative[1] > relative[0]
    assert "dynamics/units_against_realism/layer_3" in last.metrics


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
