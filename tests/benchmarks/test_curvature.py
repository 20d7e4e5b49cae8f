"""The benchmark of exact curvature on small generators: both sides agree, and the numbers are those of their definitions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import small_dcgan, small_pggan, small_stylegan2

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # after the tests: `metrics` is there too

from curvature import measured
from matrix import operations_of_a_pass
from plain import plain_curvature, plain_dcgan, reading

from qualitygate.generators.base import sample_latents
from qualitygate.scores.local_activation import local_activation

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_loop_and_the_engine_agree() -> None:
    generator = small_dcgan((6, 4))
    latents = sample_latents(generator, range(1), 7)
    with torch.no_grad():
        loop = plain_curvature(reading(plain_dcgan(generator), 1), latents.z[0], 30.0, 20)
    torch.testing.assert_close(local_activation(generator, latents, [1]).curvature[1][0], loop, rtol=1e-3, atol=1e-5)


def test_operations_of_the_cheapest_exact_form() -> None:
    dcgan = small_dcgan((8, 6), latent_size=5)
    assert operations_of_a_pass(dcgan, 1) == 2 * 8 * 6 * 4 * 64
    pggan = small_pggan()  # 5 and 4 units at 4×4, 3 and 2 at 8×8
    assert operations_of_a_pass(pggan, 3) == 2 * (9 * 5 * 4 * 16 + 4 * 4 * 3 * 64 + 9 * 3 * 2 * 64)
    stylegan2 = small_stylegan2()
    assert operations_of_a_pass(stylegan2, 0) == stylegan2.layers[0].operations - 2 * 6 * 6 * 8 * 16


@pytest.mark.parametrize("make", [lambda: small_dcgan((6, 4)), small_stylegan2], ids=["dcgan", "stylegan2"])
def test_rows(make: object) -> None:
    ours, loop = measured("small", make(), "bfloat16", 1, 1)  # type: ignore[operator]
    assert (ours.engine, loop.engine, ours.precision, ours.layer) == ("ours", "loop", "bfloat16", "8x8")
    assert ours.faster_than_loop is not None
    assert ours.faster_than_loop.median == pytest.approx(ours.samples_per_second.median / loop.samples_per_second.median)
    assert ours.signs_changed is not None
    assert 0.0 < ours.signs_changed < 0.05
    assert ours.score_error is not None
    assert 0.0 < ours.score_error < 0.2


def test_it_needs_neither_pydantic_nor_mlflow() -> None:
    script = (
        "import sys; sys.modules['pydantic'] = sys.modules['mlflow'] = None\n"
        "import curvature, subjects; from qualitygate.generators.base import sample_latents\n"
        "generator = subjects.random_pggan(2)\n"
        "print(len(list(curvature.measured('small', generator, 'float32', 1, 1))))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
