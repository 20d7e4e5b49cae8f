"""StyleGAN3 beyond the recorded vectors: its own batch, its first activation by hand, the published configurations, and its filtered
LeakyReLU against the definition, zeros and all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.errors import LatentsError
from qualitygate.generators.families.stylegan3 import FourierFeatures, Resampling, StyleGAN3, filtered_lrelu
from qualitygate.latents import Latents, Sampling, draw_latents


def layer(units: int, size: int, up: int = 2, down: int = 2, kernel: int = 3, radial: bool = False) -> dict[str, Any]:
    taps = {"up": up, "down": down, "up_taps": 6 * up, "down_taps": 6 * down}
    return {"units": units, "size": size, "kernel": kernel, **taps, "radial": radial}


def small(**changed: Any) -> StyleGAN3:
    settings: dict[str, Any] = {
        "latent_size": 5,
        "mapping": [6, 4],
        "label_size": 3,
        "label_features": 4,
        "units": 3,
        "sampling_rate": 8,
        "bandwidth": 2.0,
        "layers": [layer(4, 12), layer(3, 20, up=4, radial=True, kernel=1), layer(2, 16)],
        "image_channels": 3,
        "clamp": 256.0,
        "output_scale": 0.25,
    }
    generator = StyleGAN3(**(settings | changed)).requires_grad_(False)
    random = torch.Generator().manual_seed(3)
    for name, tensor in generator.state_dict().items():
        if name.endswith("filter"):
            tensor.fill_(1.0 / tensor.numel())
        else:
            tensor.copy_(torch.randn(tensor.shape, generator=random))
    return generator


def assert_same(image: Tensor, expected: Tensor) -> None:
    assert (image - expected).abs().max() < 1e-5 * expected.std()


def raw(generator: StyleGAN3, latents: Latents) -> Tensor:
    return generator.finish(generator.run(generator.start(latents), generator.layers[-1].index))


@pytest.fixture
def latents() -> Latents:
    return draw_latents(range(5), 1, 5, label_size=3)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_sample_does_not_depend_on_its_batch(latents: Latents, size: int) -> None:
    generator = small()
    together = raw(generator, latents)
    for start in range(0, 5, size):
        alone = raw(generator, latents[start : start + size])
        assert_same(alone, together[start : start + size])


def test_the_scale_of_a_style_does_not_matter(latents: Latents) -> None:
    generator = small()
    expected = raw(generator, latents)
    for convolution in generator.convolutions:
        convolution.style.weight.mul_(100.0)
        convolution.style.bias.mul_(100.0)
    assert_same(raw(generator, latents), expected)


def test_layers_and_image(latents: Latents) -> None:
    generator = small()
    assert [(one.name, one.units, one.resolution) for one in generator.layers] == [
        ("L0_12_4", 4, "12x12"),
        ("L1_20_3", 3, "20x20"),
        ("L2_16_2", 2, "16x16"),
    ]
    assert generator.image_shape == (3, 16, 16)
    assert raw(generator, latents).shape == (5, 3, 16, 16)


def test_operations_by_hand() -> None:
    generator = small()
    mapping = 4 * 3 + (5 + 4) * 6 + 6 * 4
    features = 4 * 4 + 12 * 12 * 3 * (2 + 3)  # affine; for each wave its phase, and the mixing
    filters = (34 * 14 * 6 + 34 * 34 * 6) + (12 * 34 * 12 + 12 * 12 * 12)
    first = 4 * 3 + 3 * 4 + 4 * 3 * 9 * 12 * 12 + 4 * filters
    assert generator.layers[0].operations == 2 * (mapping + features + first)
    assert generator.operations == generator.layers[-1].operations + 2 * (4 * 2 + 2 * 3 * 16 * 16)


def test_truncation_moves_towards_the_mean_w(latents: Latents) -> None:
    generator = small()

    def styles(**sampling: Any) -> Tensor:
        drawn = Latents(latents.ids, 1, latents.z, latents.labels, Sampling(**sampling))
        return generator.taps(drawn, names=["ws"])["ws"]

    free = styles()
    assert free.shape == (5, 5, 4)  # one for the input, three layers, to-RGB
    mean = generator.mapping.average
    torch.testing.assert_close(styles(psi=0.25), mean + 0.25 * (free - mean))
    assert torch.equal(styles(psi=0.25, cutoff=2)[:, 2:], free[:, 2:])


def test_latents_in_w_need_no_label(latents: Latents) -> None:
    generator = small()
    w = generator.taps(latents, names=["w"])["w"]
    assert torch.equal(generator(Latents(latents.ids, None, w, space="w")), generator(latents))
    with pytest.raises(LatentsError, match="w of shape"):
        generator(Latents(np.arange(2), None, torch.zeros(2, 5), space="w"))


@pytest.mark.parametrize(("name", "value"), [("bandwidth", 1.0), ("clamp", 0.01), ("output_scale", 0.5)])
def test_settings_that_no_tensor_shows_have_an_effect(latents: Latents, name: str, value: float) -> None:
    before, after = raw(small(), latents), raw(small(**{name: value}), latents)
    assert not torch.allclose(before, after)
    if name == "output_scale":
        torch.testing.assert_close(after, 2.0 * before)


def waves(style: list[float], frequency: tuple[float, float], phase: float = 0.0, sampling_rate: int = 4) -> Tensor:
    """One wave on a grid of 4, its affine layer a constant: cosine, sine, x, y."""
    features = FourierFeatures(1, 1, 4, sampling_rate, bandwidth=1.0).requires_grad_(False)
    features.affine.bias.copy_(torch.tensor(style))
    features.frequencies.copy_(torch.tensor([frequency]))
    features.phases.fill_(phase)
    features.transform.copy_(torch.eye(3))
    features.weight.fill_(2.0)
    return features(torch.zeros(1, 1))[0, 0]


def test_fourier_features_by_hand() -> None:
    x = torch.tensor([-0.375, -0.125, 0.125, 0.375])  # centres of the samples of the square of size 1
    along_x = 2.0 * torch.sin(2 * torch.pi * x).expand(4, 4)
    torch.testing.assert_close(waves([1.0, 0.0, 0.0, 0.0], (1.0, 0.0)), along_x)
    torch.testing.assert_close(waves([1.0, 0.0, 0.0, 0.0], (0.0, 1.0)), along_x.T)
    torch.testing.assert_close(waves([2.0, 0.0, 0.0, 0.0], (1.0, 0.0)), along_x)  # only the direction counts
    torch.testing.assert_close(waves([0.0, 1.0, 0.0, 0.0], (0.0, 1.0)), along_x)  # a quarter turn
    moved = 2.0 * torch.sin(2 * torch.pi * (x - 0.125)).expand(4, 4)
    torch.testing.assert_close(waves([1.0, 0.0, 0.125, 0.0], (1.0, 0.0)), moved)
    torch.testing.assert_close(waves([1.0, 0.0, 0.0, 0.0], (1.0, 0.0), phase=-0.125), moved)
    # half way between the bandwidth 1 and half the sampling rate 2; and beyond
    half = torch.sin(2 * torch.pi * 1.5 * x).expand(4, 4)
    torch.testing.assert_close(waves([1.0, 0.0, 0.0, 0.0], (1.5, 0.0)), half)
    assert not waves([1.0, 0.0, 0.0, 0.0], (2.5, 0.0)).any()


def published(resolution: int, widest: int, base: int, kernel: int) -> tuple[dict[str, Any], np.ndarray]:
    """Settings of a published configuration, from the paper's geometric progressions, and the layers' bandwidths."""
    share = np.minimum(np.arange(15) / 12, 1.0)
    bandwidths = 2.0 * (resolution / 4) ** share
    stopbands = 2**2.1 * (resolution / 2 * 2**0.3 / 2**2.1) ** share
    rates = np.exp2(np.ceil(np.log2(np.minimum(2 * stopbands, resolution)))).astype(int)
    units = np.rint(np.minimum(base / 2 / bandwidths, widest)).astype(int)
    layers = []
    for index in range(14):
        before, rate = int(rates[max(index - 1, 0)]), int(rates[index])
        size = resolution if index == 13 else rate + 20
        between = 2 * max(before, rate)
        radial = kernel == 1 and index < 12
        layers.append(layer(int(units[index]), size, between // before, between // rate, kernel, radial))
    settings = {"latent_size": 512, "mapping": [512, 512], "label_size": 0, "label_features": 0, "units": int(units[0])}
    settings |= {"sampling_rate": int(rates[0]), "bandwidth": 2.0, "layers": layers}
    return settings | {"image_channels": 3, "clamp": 256.0, "output_scale": 0.25}, bandwidths


@pytest.mark.parametrize(
    ("resolution", "widest", "base", "kernel", "names", "stop"),
    [
        (1024, 512, 32768, 3, ["L0_36_512", "L1_36_512", "L2_52_512", "L3_52_512", "L4_84_512"], 3),
        (512, 512, 32768, 3, ["L0_36_512", "L1_36_512", "L2_52_512", "L3_52_512", "L4_84_512"], 3),
        (256, 1024, 65536, 1, ["L0_36_1024", "L1_36_1024", "L2_36_1024", "L3_52_1024", "L4_52_1024"], 4),
    ],
)
def test_the_presets_stop_where_the_bandwidth_is_that_of_16x16(
    resolution: int, widest: int, base: int, kernel: int, names: list[str], stop: int
) -> None:
    settings, bandwidths = published(resolution, widest, base, kernel)
    with torch.device("meta"):
        generator = StyleGAN3(**settings)
    assert [one.name for one in generator.layers[:5]] == names
    assert generator.layers[-1].name.startswith(f"L13_{resolution}_")
    assert generator.presets.stop == stop
    assert np.abs(bandwidths - 8.0).argmin() == stop
    assert (generator.presets.low_rate, generator.presets.curvature) == ((0, 1, 3), (0,))


PLANS = [
    Resampling(inputs=7, outputs=5, up=2, down=2, up_taps=6, down_taps=6, radial=False),
    Resampling(inputs=6, outputs=9, up=4, down=2, up_taps=12, down_taps=6, radial=False),
    Resampling(inputs=6, outputs=5, up=2, down=2, up_taps=6, down_taps=4, radial=True),
    Resampling(inputs=9, outputs=3, up=2, down=4, up_taps=4, down_taps=8, radial=False),
]


def filters(plan: Resampling) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = [plan.down_taps] * (2 if plan.radial else 1)
    return torch.rand(plan.up_taps, generator=generator), torch.rand(shape, generator=generator)


def square(taps: Tensor) -> Tensor:
    return taps if taps.ndim == 2 else taps[:, None] * taps


def by_definition(x: Tensor, up_filter: Tensor, down_filter: Tensor, plan: Resampling, clamp: float) -> Tensor:
    """One image: zeros inserted, padded or cropped, convolved, bent, convolved, thinned out."""
    size = x.shape[-1] * plan.up
    spread = torch.zeros(1, 1, size, size)
    spread[..., :: plan.up, :: plan.up] = x
    total = (plan.outputs - 1) * plan.down + plan.down_taps + plan.up_taps - 1 - size
    before = (total + plan.up) // 2
    padded = F.pad(spread, (before, total - before) * 2)
    high = F.conv2d(padded, square(up_filter).flip(0, 1)[None, None]) * plan.up**2
    bent = torch.where(high > 0, high, 0.2 * high) * 2**0.5
    low = F.conv2d(bent.clamp(-clamp, clamp), square(down_filter).flip(0, 1)[None, None])
    return low[..., :: plan.down, :: plan.down]


@pytest.mark.parametrize("plan", PLANS)
def test_equals_the_definition(plan: Resampling) -> None:
    x = torch.randn(2, 3, plan.inputs, plan.inputs, generator=torch.Generator().manual_seed(1))
    up_filter, down_filter = filters(plan)
    ours = filtered_lrelu(x, up_filter, down_filter, plan, clamp=8.0)
    assert ours.shape == (2, 3, plan.outputs, plan.outputs)
    for sample in range(2):
        for unit in range(3):
            expected = by_definition(x[sample, unit], up_filter, down_filter, plan, clamp=8.0)[0, 0]
            torch.testing.assert_close(ours[sample, unit], expected)


def test_a_constant_far_from_the_border_keeps_its_value() -> None:
    plan = PLANS[0]
    taps = torch.full((6,), 1 / 6)
    x = torch.stack((torch.full((7, 7), 3.0), torch.full((7, 7), -3.0)))[None]
    middle = filtered_lrelu(x, taps, taps, plan, clamp=256.0)[0, :, 2, 2]
    torch.testing.assert_close(middle, torch.tensor([3.0, -0.6]) * 2**0.5)


def test_the_clamp_can_be_left_out_and_has_an_effect() -> None:
    plan = PLANS[0]
    up_filter, down_filter = filters(plan)
    x = torch.ones(1, 1, 7, 7)
    free = filtered_lrelu(x, up_filter, down_filter, plan, clamp=None)
    assert torch.equal(filtered_lrelu(x, up_filter, down_filter, plan, clamp=1e6), free)
    clamped = filtered_lrelu(x, up_filter, down_filter, plan, clamp=0.5)
    torch.testing.assert_close(clamped[0, 0, 2, 2], 0.5 * square(down_filter).sum())


def test_the_input_is_left_alone() -> None:
    plan = PLANS[0]
    x = torch.randn(1, 2, 7, 7)
    before = x.clone()
    filtered_lrelu(x, *filters(plan), plan, clamp=1.0)
    assert torch.equal(x, before)


def test_operations_of_the_filters_by_hand() -> None:
    plan = PLANS[0]
    assert plan.between == 14
    up = 14 * 7 * 3 + 14 * 14 * 3  # 3 of the 6 taps meet a sample, along one axis and then the other
    assert plan.operations == 2 * (up + 5 * 14 * 6 + 5 * 5 * 6)
    radial = PLANS[2]
    assert radial.between == 12
    assert radial.operations == 2 * (12 * 6 * 3 + 12 * 12 * 3 + 5 * 5 * 16)
