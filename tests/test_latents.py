"""Latents: golden values, which can never change, and independence of everything but seed and id."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qualitygate.errors import LatentsError
from qualitygate.latents import Latents, Purpose, Sampling, draw_latents, load_latents, normals, uniforms

LAST_ID = 2**48 - 1

# float32 values, exactly. If one of these changes, every record ever written names another image.
GOLDEN = [
    (
        0,
        [0, 1],
        4,
        {},
        [
            ["0x1.44ad64p-3", "0x1.7dcefep+1", "-0x1.ecfa26p+0", "-0x1.a65ca4p-1"],
            ["-0x1.9eba0ap-3", "0x1.27e02ap+0", "0x1.522122p-2", "-0x1.dadb4cp-6"],
        ],
    ),
    (
        1,
        [7, 1_000_000],
        3,
        {},
        [["-0x1.85827ep-1", "0x1.3e284cp+0", "-0x1.9807b8p-2"], ["-0x1.db6e00p-2", "-0x1.95e238p-2", "-0x1.9ef57ep+0"]],
    ),
    (2**64 - 1, [LAST_ID], 5, {}, [["-0x1.f46b8ep-1", "-0x1.1e4734p+0", "0x1.956afcp-1", "-0x1.d742f8p-2", "-0x1.c7d3b2p+0"]]),
    (
        0,
        [0, 1],
        3,
        {"sampling": Sampling(psi=0.5), "truncate_z": True},
        [["0x1.44ad64p-3", "-0x1.386a94p-3", "-0x1.df9536p-2"], ["-0x1.9eba0ap-3", "0x1.2fa2a0p-2", "0x1.522122p-2"]],
    ),
]
GOLDEN_LABELS = [
    (0, 10, "uniform", [8, 7, 6, 4, 7, 2, 8, 5, 5, 9, 7, 6]),
    (9, 10, "uniform", [1, 9, 2, 5, 2, 7, 0, 3, 5, 7, 9, 3]),
    (9, 3, (0.2, 0.0, 0.8), [0, 2, 2, 2, 2, 2, 0, 2, 2, 2, 2, 2]),
    (9, 3, 1, [1] * 12),
]


@pytest.mark.parametrize(("seed", "ids", "size", "settings", "expected"), GOLDEN)
def test_golden_latents(seed: int, ids: list[int], size: int, settings: dict, expected: list[list[str]]) -> None:
    latents = draw_latents(ids, seed, size, **settings)
    assert latents.z.dtype == torch.float32
    assert latents.z.tolist() == [[float.fromhex(one) for one in row] for row in expected]
    assert latents.ids.dtype == np.int64
    assert latents.seed == seed


@pytest.mark.parametrize(("seed", "classes", "labels", "expected"), GOLDEN_LABELS)
def test_golden_labels(seed: int, classes: int, labels: object, expected: list[int]) -> None:
    latents = draw_latents(range(12), seed, 2, label_size=classes, sampling=Sampling(labels=labels))  # type: ignore[arg-type]
    assert latents.labels is not None
    assert latents.labels.dtype == torch.int64
    assert latents.labels.tolist() == expected


def test_the_stream_as_documented() -> None:
    """Words of Philox, uniforms in the open interval, Box-Muller: written out for one id."""
    words = np.random.Philox(key=np.array([3, 0], dtype=np.uint64)).random_raw(12)[8:]  # 4 words an id, the third id
    u = [((int(word) >> 11) + 0.5) / 2**53 for word in words]
    by_hand = []
    for first, second in (u[:2], u[2:]):
        radius = math.sqrt(-2.0 * math.log(first))
        by_hand += [radius * math.cos(2.0 * math.pi * second), radius * math.sin(2.0 * math.pi * second)]
    np.testing.assert_allclose(normals(3, Purpose.LATENT, np.array([2]), 4)[0], by_hand, rtol=1e-12)
    np.testing.assert_allclose(draw_latents([2], 3, 3).z[0].numpy(), by_hand[:3], rtol=1e-6)


IDS = st.lists(st.one_of(st.integers(0, 40), st.integers(LAST_ID - 40, LAST_ID)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(ids=IDS, size=st.integers(1, 9), psi=st.sampled_from([1.0, 0.7]))
def test_neither_batch_nor_order_nor_gaps_matter(ids: list[int], size: int, psi: float) -> None:
    how = {"label_size": 7, "sampling": Sampling(psi=psi), "truncate_z": True}
    together = draw_latents(ids, 5, size, **how)
    for row, one in enumerate(ids):
        alone = draw_latents([one], 5, size, **how)
        assert torch.equal(alone.z[0], together.z[row])
        assert alone.labels is not None
        assert together.labels is not None
        assert alone.labels[0] == together.labels[row]


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
def test_a_run_of_ids_may_be_split_anywhere(pieces: int) -> None:
    whole = draw_latents(range(20), 4, 6, label_size=3)
    parts = [draw_latents(range(start, min(start + pieces, 20)), 4, 6, label_size=3) for start in range(0, 20, pieces)]
    joined = Latents.concatenated(parts)
    assert torch.equal(joined.z, whole.z)
    assert torch.equal(joined.labels, whole.labels)
    assert joined.ids.tolist() == list(range(20))


def test_every_argument_matters() -> None:
    base = draw_latents(range(8), 0, 4, label_size=5)
    assert not torch.equal(draw_latents(range(8, 16), 0, 4).z, base.z)
    assert not torch.equal(draw_latents(range(8), 1, 4).z, base.z)
    assert not torch.equal(draw_latents(range(8), 1, 4, label_size=5).labels, base.labels)
    assert draw_latents(range(8), 0, 6).z.shape == (8, 6)
    assert draw_latents(range(8), 0, 4).labels is None
    truncated = Sampling(psi=0.5)
    assert torch.equal(draw_latents(range(8), 0, 4, sampling=truncated).z, base.z)  # the family truncates in w
    assert not torch.equal(draw_latents(range(8), 0, 4, sampling=truncated, truncate_z=True).z, base.z)


def test_truncation_draws_again_only_what_is_beyond() -> None:
    plain, truncated = (draw_latents(range(200), 0, 8, sampling=Sampling(psi=psi), truncate_z=True).z for psi in (1.0, 0.5))
    assert truncated.abs().max() <= 0.5
    within = plain.abs() < 0.5
    assert torch.equal(truncated[within], plain[within])
    assert (truncated[~within] != plain[~within]).all()


def test_streams_of_different_purpose_differ() -> None:
    ids = np.arange(4)
    streams = [uniforms(0, purpose, ids, 3).tobytes() for purpose in (*Purpose, Purpose.RANDOM_ABLATION + 16)]
    assert len(set(streams)) == len(streams)


def test_statistics() -> None:
    z = draw_latents(range(20_000), 0, 3).z.double()
    assert z.mean(dim=0).abs().max() < 0.03
    assert (z.std(dim=0) - 1.0).abs().max() < 0.03
    assert (z.T.corrcoef() - torch.eye(3)).abs().max() < 0.03
    u = uniforms(0, Purpose.LABEL, np.arange(20_000), 1)
    assert 0.0 < u.min() < u.max() < 1.0
    shares = np.bincount(draw_latents(range(20_000), 0, 1, label_size=3, sampling=Sampling(labels=(0.1, 0.2, 0.7))).labels)
    np.testing.assert_allclose(shares / 20_000, [0.1, 0.2, 0.7], atol=0.01)


def test_no_ids_are_no_latents() -> None:
    assert draw_latents([], 0, 4, label_size=2, sampling=Sampling(psi=0.5), truncate_z=True).z.shape == (0, 4)


@pytest.mark.parametrize("ids", [[-1], [0, 2**48], [[0, 1]], 3, [2**70]])
def test_ids_out_of_range(ids: object) -> None:
    with pytest.raises(LatentsError, match=r"ids in \[0, 2\*\*48\)|one dimension"):
        draw_latents(ids, 0, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range(seed: int) -> None:
    with pytest.raises(LatentsError, match="seed is out of range"):
        draw_latents([0], seed, 2)


@pytest.mark.parametrize("labels", [3, -1, (0.5, 0.5), (0.5, 0.4, 0.2), (1.5, -0.5, 0.0), (float("nan"), 0.5, 0.5)])
def test_labels_that_do_not_fit(labels: object) -> None:
    with pytest.raises(LatentsError, match=r"No such class|does not fit"):
        draw_latents([0], 0, 2, label_size=3, sampling=Sampling(labels=labels))  # type: ignore[arg-type]


def test_picking_padding_and_joining() -> None:
    latents = draw_latents(range(5), 0, 2, label_size=3)
    picked = latents[[3, 1]]
    assert picked.ids.tolist() == [3, 1]
    assert torch.equal(picked.z, latents.z[[3, 1]])
    assert torch.equal(picked.labels, latents.labels[[3, 1]])
    assert latents[1:3].ids.tolist() == [1, 2]
    assert latents[np.array([True, False, False, True, False])].ids.tolist() == [0, 3]
    padded = latents.padded(8)
    assert padded.ids.tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert torch.equal(padded.z[4:], latents.z[4:].expand(4, -1))
    assert latents.padded(5) is latents
    assert len(Latents.concatenated([picked, padded])) == 10
    assert latents.to("cpu").seed == 0


# a user's own


def written(path: Path, **arrays: object) -> Path:
    np.savez(path / "latents.npz", **arrays)  # type: ignore[arg-type]
    return path / "latents.npz"


def test_own_latents(tmp_path: Path) -> None:
    z = np.arange(6.0).reshape(3, 2)
    latents = load_latents(written(tmp_path, z=z, labels=np.array([2, 0, 1], dtype=np.uint8)))
    assert latents.z.tolist() == z.tolist()
    assert latents.z.dtype == torch.float32
    assert latents.ids.tolist() == [0, 1, 2]
    assert latents.labels is not None
    assert latents.labels.tolist() == [2, 0, 1]
    assert (latents.seed, latents.space) == (None, "z")
    assert load_latents(written(tmp_path, w=z)).space == "w"
    assert load_latents(written(tmp_path, w=z)).labels is None


Z = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": Z}, r"x \(3, 2\)"),
        ({"z": Z, "w": Z}, r"z \(3, 2\), w \(3, 2\)"),
        ({"z": Z[0]}, r"z \(2,\)"),
        ({"z": Z[:0]}, r"z \(0, 2\)"),
        ({"z": np.array([["a", "b"]])}, "z of type <U1"),
        ({"z": Z + 1j}, "z of type complex128"),
        ({"z": np.array([[None, 1.0]], dtype=object)}, "Cannot read latents"),
        ({"z": np.array([[0.0, 1.0], [np.nan, 0.0]])}, "row 1"),
        ({"z": np.array([[0.0, np.inf]])}, "row 0"),
        ({"z": np.array([[0.0, 1e300]])}, "row 0"),
        ({"z": Z, "labels": np.array([0, 1])}, r"int64 \(2,\)"),
        ({"z": Z, "labels": np.array([0.0, 1.0, 2.0])}, r"float64 \(3,\)"),
        ({"z": Z, "labels": np.array([0, -1, 2])}, "label -1"),
    ],
)
def test_own_latents_that_cannot_be_used(tmp_path: Path, arrays: dict, message: str) -> None:
    with pytest.raises(LatentsError, match=message):
        load_latents(written(tmp_path, **arrays))


def test_files_that_hold_no_latents(tmp_path: Path) -> None:
    with pytest.raises(LatentsError, match="no such file"):
        load_latents(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "one.npy", Z)
    cut = written(tmp_path, z=np.arange(1000.0).reshape(500, 2))
    cut.write_bytes(cut.read_bytes()[:2000])
    for name in ("text.npz", "one.npy", "latents.npz", "."):
        with pytest.raises(LatentsError, match="Cannot read latents"):
            load_latents(tmp_path / name)
