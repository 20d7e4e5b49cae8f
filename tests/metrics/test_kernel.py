from __future__ import annotations

import numpy as np
import pytest
import torch

from qualitygate.errors import InputError
from qualitygate.metrics import kernel
from qualitygate.metrics.kernel import KernelReference, kernel_distances


def squared_mmd(generated: torch.Tensor, real: torch.Tensor) -> float:
    reference = KernelReference.of(real)
    return kernel_distances(generated, reference, reference.rows(generated))[0]


@pytest.mark.parametrize(("subsets", "key"), [("s10", "nvlabs_kid_subsets10_max200"), ("s3", "nvlabs_kid_subsets3_max1000")])
def test_the_mean_over_the_stored_subsets_agrees(recorded, expected, subsets: str, key: str) -> None:
    fake, real = (recorded.tensors[f"input/{side}"] for side in ("fake", "real"))
    chosen = zip(*(recorded.tensors[f"expected/kid_{side}_idx_{subsets}"].long() for side in ("gen", "real")), strict=True)
    ours = [squared_mmd(fake[generated], real[others]) for generated, others in chosen]
    assert sum(ours) / len(ours) == pytest.approx(expected[key]["value_float64"], rel=1e-9)


def test_by_hand() -> None:
    """One feature, kernel (xy + 1)³: within {0, 1} 1, within {1, 1} 8, across 1, 1, 8, 8."""
    generated, real = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [1.0]])
    assert squared_mmd(generated, real) == pytest.approx(1.0 + 8.0 - 2 * (1 + 1 + 8 + 8) / 4)


def test_no_bias_and_the_right_direction() -> None:
    random = torch.Generator().manual_seed(0)
    real = torch.randn(300, 5, generator=random)
    same = [squared_mmd(torch.randn(20, 5, generator=random), real) for _ in range(200)]
    assert abs(sum(same) / len(same)) < 0.1  # a sample paired with itself would add 0.3
    slightly, badly = (squared_mmd(real + shift, real) for shift in (0.2, 1.0))
    assert slightly < badly


def test_leaving_blocks_out_is_what_it_says(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = recorded.tensors["input/fake"][:60], KernelReference.of(recorded.tensors["input/real"])
    rows = real.rows(fake)
    blocks = [np.arange(20), np.arange(20, 60)]
    whole, *left = kernel_distances(fake, real, rows, blocks)
    assert left[0] == pytest.approx(kernel_distances(fake[20:], real, rows[20:])[0], rel=1e-9)
    assert left[1] == pytest.approx(kernel_distances(fake[:20], real, rows[:20])[0], rel=1e-9)
    monkeypatch.setattr(kernel, "_PRODUCTS", 700)
    assert kernel_distances(fake, real, real.rows(fake))[0] == pytest.approx(whole, rel=1e-12)


def test_one_sample_is_refused() -> None:
    with pytest.raises(InputError, match="Too few samples for KID"):
        squared_mmd(torch.ones(1, 3), torch.ones(4, 3))
