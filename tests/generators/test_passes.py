"""The loop that everything runs through: any number of samples, in micro-batches of one shape."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from qualitygate.errors import LatentsError, LayerError
from qualitygate.generators.base import Edit, State, sample_latents
from qualitygate.generators.passes import MICRO_BATCH, pixels, scored_pass
from qualitygate.scores.low_rate import activation_rates, growing_rates
from qualitygate.storage import to_uint8
from qualitygate.testing import ToyGenerator, random_toy

COUNTS = [1, 3, MICRO_BATCH, MICRO_BATCH + 7]


@pytest.fixture(scope="module")
def generator() -> ToyGenerator:
    return random_toy(5, [(4, 2, 2), (3, 4, 4)], label_size=3)


@pytest.mark.parametrize("count", COUNTS)
def test_images_are_those_of_one_large_batch(generator: ToyGenerator, count: int) -> None:
    latents, done = sample_latents(generator, range(count), 0), list[int]()
    images = generator.images(latents, progress=done.append)
    torch.testing.assert_close(images, generator(latents))
    assert not images.requires_grad
    assert sum(done) == count
    parts = list(generator.image_batches(latents))
    assert [rows for rows, _ in parts] == [slice(at, min(at + MICRO_BATCH, count)) for at in range(0, count, MICRO_BATCH)]
    assert torch.equal(torch.cat([part for _, part in parts]), images)


@pytest.mark.parametrize("count", COUNTS)
def test_activations_of_each_layer_in_one_pass(generator: ToyGenerator, count: int) -> None:
    latents = sample_latents(generator, range(count), 0)
    seen: dict[int, list[Tensor]] = {0: [], 1: []}
    for rows, layer, activation in generator.activations(latents, [1, "layer0"]):
        assert len(activation) == rows.stop - rows.start
        seen[layer].append(activation)
    for state in generator.states(generator.start(latents)):
        torch.testing.assert_close(torch.cat(seen[state.layer]), state.activation)


def test_the_pass_ends_at_the_last_layer_asked_for(generator: ToyGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    advance = ToyGenerator.advance
    monkeypatch.setattr(ToyGenerator, "advance", lambda self, state: ran.append(state.layer + 1) or advance(self, state))
    list(generator.activations(sample_latents(generator, range(2), 0), [0]))
    assert ran == [0]


def test_a_bare_z_will_do(generator: ToyGenerator) -> None:
    plain = random_toy(5, [(4, 2, 2), (3, 4, 4)])
    latents = sample_latents(plain, range(3), 0)
    assert torch.equal(plain.images(latents.z), plain.images(latents))
    read = zip(plain.activations(latents.z, [1]), plain.activations(latents, [1]), strict=True)
    assert all(torch.equal(ours[2], theirs[2]) for ours, theirs in read)
    with pytest.raises(LatentsError, match="conditional"):
        generator.images(latents.z)
    with pytest.raises(LayerError, match="no such layer"):
        list(plain.activations(latents, [7]))


def test_edits_of_rows_reach_their_samples(generator: ToyGenerator) -> None:
    count = MICRO_BATCH + 3
    latents = sample_latents(generator, range(count), 0)
    factors = torch.linspace(0.0, 1.0, count)

    def edits(rows: np.ndarray) -> Mapping[int, Edit]:
        assert len(rows) == MICRO_BATCH
        return {0: lambda activation: activation * factors[rows][:, None, None, None]}

    whole: dict[int, Edit] = {0: lambda activation: activation * factors[:, None, None, None]}
    torch.testing.assert_close(generator.images(latents, edits), generator(latents, whole))
    read = torch.cat([activation for _, _, activation in generator.activations(latents, [0], edits)])
    torch.testing.assert_close(read, torch.cat([a for _, _, a in generator.activations(latents, [0])]) * factors[:, None, None, None])


def test_no_gradients_inside_and_the_callers_own_mode_in_between(generator: ToyGenerator) -> None:
    latents = sample_latents(generator, range(MICRO_BATCH + 1), 0)
    for _, _, activation in generator.activations(latents, [0, 1]):
        assert torch.is_grad_enabled()
        assert not activation.requires_grad
    assert torch.is_grad_enabled()


class Cramped(ToyGenerator):
    """Holds ``most`` samples in layer 1."""

    most = 10

    def advance(self, state: State) -> State:
        if state.layer == 0 and len(state.activation) > self.most:
            raise torch.OutOfMemoryError("no room")
        return super().advance(state)


def test_where_the_device_has_no_room_for_a_batch_its_halves_are_made(generator: ToyGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = sample_latents(generator, range(MICRO_BATCH + 5), 0)
    factors = torch.linspace(0.0, 1.0, len(latents))

    def edits(rows: np.ndarray) -> Mapping[int, Edit]:
        return {0: lambda activation: activation * factors[rows][:, None, None, None]}

    def read() -> tuple[dict[int, Tensor], dict[int, list[int]]]:
        parts: dict[int, list[tuple[slice, Tensor]]] = {0: [], 1: []}
        for rows, layer, activation in generator.activations(latents, [0, 1], edits):
            assert len(activation) == rows.stop - rows.start
            parts[layer].append((rows, activation))
        stops = {layer: [rows.stop for rows, _ in part] for layer, part in parts.items()}
        return {layer: torch.cat([activation for _, activation in part]) for layer, part in parts.items()}, stops

    images, (whole, stops) = generator.images(latents, edits), read()
    assert stops == {0: [64, 69], 1: [64, 69]}
    rates = activation_rates(generator, [0, 1], samples=len(latents))
    monkeypatch.setattr(generator, "__class__", Cramped)
    torch.testing.assert_close(generator.images(latents, edits), images)
    generator.most_rows.clear()
    halved, stops = read()
    in_eights = [8, 16, 24, 32, 40, 48, 56, 64, 69]
    # what was read before there was no room is not read again, and padding alone is not given
    assert stops == {0: [64, 69], 1: in_eights}
    assert read()[1] == {0: in_eights, 1: in_eights}  # and what there was room for is where the next begins
    torch.testing.assert_close(halved, whole)
    sizes = [rates.samples for rates in growing_rates(generator, [0, 1], len(latents), 0)]
    assert sizes == [64, 69]
    assert activation_rates(generator, [0, 1], samples=len(latents)).counts[1].equal(rates.counts[1])


def test_no_samples_have_shapes_all_the_same(generator: ToyGenerator) -> None:
    latents = sample_latents(generator, [], 0)
    assert generator.images(latents).shape == (0, *generator.image_shape)
    read = [(layer, activation.shape) for _, layer, activation in generator.activations(latents, [0, 1])]
    assert read == [(0, (0, 4, 2, 2)), (1, (0, 3, 4, 4))]


def _of(place: str) -> tuple[object, str]:
    *path, name = place.split(".")
    owner: object = torch.backends
    for one in path:
        owner = getattr(owner, one)
    return owner, name


@pytest.mark.filterwarnings("ignore:Please use the new API settings")  # torch 2.9 of whoever uses the older way
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("cuda.matmul.allow_tf32", True),
        ("cudnn.allow_tf32", False),
        ("cuda.matmul.fp32_precision", "tf32"),
        ("cudnn.fp32_precision", "tf32"),
        ("cudnn.conv.fp32_precision", "ieee"),
        ("fp32_precision", "tf32"),
    ],
)
def test_a_pass_is_in_float32_whatever_was_set_and_however(place: str, value: object) -> None:
    """Torch has an older and a newer way to ask for TF32, and refuses whoever mixes them."""
    owner, name = _of(place)
    backends = torch.backends
    operations = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul)
    before = getattr(owner, name), [one.fp32_precision for one in operations]
    try:
        setattr(owner, name, value)
        found = [one.fp32_precision for one in operations], backends.cudnn.deterministic
        with scored_pass():
            assert [one.fp32_precision for one in operations] == ["ieee"] * 3
            torch.ones(2, 2) @ torch.ones(2, 2)
        with scored_pass(tf32=True):
            assert [one.fp32_precision for one in operations] == ["tf32", "tf32", "ieee"]
        assert ([one.fp32_precision for one in operations], backends.cudnn.deterministic) == found
    finally:
        setattr(owner, name, before[0])
        for one, precision in zip(operations, before[1], strict=True):
            one.fp32_precision = precision


def test_pixels_are_what_the_written_image_has() -> None:
    images = torch.rand(2, 3, 4, 5) * 2.4 - 1.2
    assert np.array_equal(pixels(images).numpy(), np.stack([to_uint8(image) for image in images.numpy()]))
