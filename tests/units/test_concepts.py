"""Top samples, representative images, heat and clusters, on chains where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import small_dcgan, small_pggan, small_stylegan2

from qualitygate.errors import InputError
from qualitygate.generators.base import sample_latents
from qualitygate.testing.toys import ToyGenerator
from qualitygate.units.concepts import clusters, peaks, representative, top_samples, unit_heat


def test_top_samples_by_hand() -> None:
    toy = ToyGenerator([[[1.0], [-1.0], [0.0], [0.0]]], [[0.0, 0.0, 0.0, 0.0]], [(2, 1, 2)])
    latents = sample_latents(toy, range(150), 0)
    z = latents.z[:, 0]
    found = top_samples(toy, latents, [0], 3)[0]
    farthest = z.abs().argsort(descending=True)[:3]  # the first unit is |z|, at one of its two positions
    assert found.rows.tolist() == [farthest.tolist(), [0, 1, 2]]  # of equally active samples the first
    torch.testing.assert_close(found.peak[0], z[farthest].abs())


def test_top_samples_of_every_layer_against_a_full_sort() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(130), 0)
    found = top_samples(generator, latents, [0, 2], 70)
    for layer in (0, 2):
        peak = generator.run(generator.start(latents), layer).activation.amax(dim=(2, 3)).T
        torch.testing.assert_close(found[layer].peak, peak.sort(dim=1, descending=True).values[:, :70])
    with pytest.raises(InputError, match="Not so many samples"):
        top_samples(generator, latents, [0], 131)


@pytest.mark.parametrize("make", [small_dcgan, small_pggan, small_stylegan2])
def test_the_representative_of_one_sample_is_its_image(make) -> None:
    generator = make()
    latents = sample_latents(generator, range(3), 0)
    with torch.no_grad():
        image = generator(latents[:1])[0]
    torch.testing.assert_close(representative(generator, latents[:1], 1), image, rtol=1e-4, atol=1e-5)
    assert representative(generator, latents, 1).shape == generator.image_shape
    with pytest.raises(InputError, match="nothing to take the mean of"):
        representative(generator, latents[:0], 1)


def test_the_representative_is_made_from_the_mean_featuremap() -> None:
    toy = ToyGenerator([[[1.0]], [[1.0]]], [[0.0], [0.0]])
    latents = sample_latents(toy, range(9), 0)
    mean = latents.z.clamp(min=0.0).mean()
    torch.testing.assert_close(representative(toy, latents, 0).flatten()[0], torch.tanh(mean))


def test_heat_is_where_the_unit_is_active() -> None:
    toy = ToyGenerator([[[1.0], [0.0], [-1.0], [0.0]]], [[0.0] * 4], [(2, 1, 2)])
    latents = sample_latents(toy, range(70), 0)
    first, second = (unit_heat(toy, latents, 0, unit) for unit in range(2))
    torch.testing.assert_close(first[:, 0, 0], latents.z[:, 0].clamp(min=0.0))
    torch.testing.assert_close(second[:, 0, 0], (-latents.z[:, 0]).clamp(min=0.0))
    assert first[:, 0, 1].abs().max() == 0.0


def test_units_that_fire_together_are_a_cluster() -> None:
    """Two units read one axis, two read another, one is dead."""
    toy = ToyGenerator([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [0.1, 3.0], [0.0, 0.0]]], [[0.0] * 5])
    active = peaks(toy, sample_latents(toy, range(200), 0), {0: [0, 1, 2, 3, 4]})
    assert clusters(active).tolist() == [0, 1, 0, 1, 2]
    assert clusters(active, shared=-0.9).max() == 0
    assert clusters(active[:, :1]).tolist() == [0]
    with pytest.raises(InputError, match="cannot be clustered"):
        clusters(active[:1])


def test_peaks_of_chosen_units_of_several_layers() -> None:
    generator = small_dcgan()
    latents = sample_latents(generator, range(70), 0)
    found = peaks(generator, latents, {2: [1], 0: [3, 0]})
    first, last = (generator.run(generator.start(latents), layer).activation for layer in (0, 2))
    expected = torch.stack((first[:, 3].amax((1, 2)), first[:, 0].amax((1, 2)), last[:, 1].amax((1, 2))), dim=1)
    assert np.allclose(found, expected)
