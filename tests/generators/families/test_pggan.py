"""PGGAN as a chain: counts worked out by hand, edits, batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qualitygate.errors import LatentsError
from qualitygate.generators.families.pggan import PGGAN
from qualitygate.latents import draw_latents


def small(**settings: object) -> PGGAN:
    """Weights of a size that keeps activations of order one, the same every time."""
    generator = PGGAN(**{"latent_size": 6, "units": [5, 4, 3, 2], **settings})
    random = torch.Generator().manual_seed(0)
    for parameter in generator.parameters():
        fan_in = max(parameter[0].numel(), 1)
        parameter.data.normal_(0.0, fan_in**-0.5, generator=random)
    return generator.eval().requires_grad_(False)


def test_layers_and_operations() -> None:
    generator = small()
    assert [(layer.units, layer.resolution) for layer in generator.layers] == [(5, "4x4"), (4, "4x4"), (3, "8x8"), (2, "8x8")]
    dense, same, doubled, last = 2 * 6 * 5 * 16, 2 * 9 * 5 * 4 * 16, 2 * 4 * 4 * 3 * 64, 2 * 9 * 3 * 2 * 64
    expected = [dense, dense + same, dense + same + doubled, dense + same + doubled + last]
    assert [layer.operations for layer in generator.layers] == expected
    assert generator.operations == expected[-1] + 2 * 2 * 3 * 64
    assert small(lod=0.5).operations == generator.operations + 2 * 4 * 3 * 16


@pytest.mark.parametrize(("blocks", "low_rate", "curvature", "stop"), [(1, (1,), 1, 1), (2, (1, 3), 3, 3), (4, (1, 3, 5), 3, 5)])
def test_presets_are_clipped_to_the_layers_there_are(blocks: int, low_rate: tuple[int, ...], curvature: int, stop: int) -> None:
    presets = PGGAN(4, [2] * (2 * blocks)).presets
    assert (presets.low_rate, presets.curvature, presets.stop) == (low_rate, (curvature,), stop)


def test_the_length_of_z_does_not_matter() -> None:
    generator, z = small(), draw_latents(range(3), 1, 6).z
    torch.testing.assert_close(generator(z), generator(5.0 * z))


@pytest.mark.parametrize("after_norm", [True, False])
def test_where_the_label_joins(after_norm: bool) -> None:
    generator = small(label_size=2, label_after_norm=after_norm)
    latents = draw_latents(range(3), 1, 6, label_size=2)
    longer = draw_latents(range(3), 1, 6, label_size=2)
    longer.z.mul_(5.0)
    same = torch.allclose(generator(latents), generator(longer), atol=1e-5)
    assert same is after_norm
    with pytest.raises(LatentsError, match="conditional"):
        generator(latents.z)


def test_blending_reads_the_edited_activation_of_the_resolution_before() -> None:
    generator, z = small(lod=0.25), draw_latents(range(3), 1, 6).z

    def silence(activation: Tensor) -> Tensor:
        return torch.zeros_like(activation)

    # with nothing at 4×4 the coarse image is its bias everywhere
    states = list(generator.states(generator.start(z), edits={1: silence}))
    bias = generator.rgb_bias[0][:, None, None].expand(3, -1, 4, 4)
    torch.testing.assert_close(states[-1].carry, bias)
    coarse = F.interpolate(bias, scale_factor=2.0)
    fine = generator._to_rgb(states[-1].activation, -1)
    torch.testing.assert_close(generator.finish(states[-1]), 0.75 * fine + 0.25 * coarse)


def test_whole_levels_of_detail_repeat_pixels() -> None:
    generator, z = small(), draw_latents(range(3), 1, 6).z
    coarse = small(lod=2.0)
    assert coarse.image_shape == (3, 32, 32)
    torch.testing.assert_close(coarse(z), generator(z).repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_final_tanh() -> None:
    z = draw_latents(range(3), 1, 6).z
    plain, bounded = small(), small(final_tanh=True)
    state = plain.run(plain.start(z), 3)
    torch.testing.assert_close(bounded(z), torch.tanh(plain.finish(state)))


def test_gradients_reach_z() -> None:
    generator, z = small(lod=0.5), draw_latents(range(3), 1, 6).z.requires_grad_()
    (gradient,) = torch.autograd.grad(generator.finish(generator.run(generator.start(z), 3)).sum(), z)
    assert gradient.abs().amin(dim=1).gt(0.0).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_batch_does_not_matter(size: int) -> None:
    generator, z = small(), draw_latents(range(5), 1, 6).z
    parts = torch.cat([generator(part) for part in z.split(size)])
    torch.testing.assert_close(parts, generator(z), rtol=0.0, atol=1e-4)
