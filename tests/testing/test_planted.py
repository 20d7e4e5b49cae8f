"""Planted defects: the truth is true, the mark hangs on the units as they stand, and files keep all of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from testing.small import dcgan, every_kind, pggan

from qualitygate.checkpoints import save as native
from qualitygate.checkpoints.load import load_generator
from qualitygate.checkpoints.save import save_generator
from qualitygate.cli.inspect import describe
from qualitygate.corrections.ablation import sequential_ablation
from qualitygate.errors import CheckpointError, InputError, LatentsError, LayerError
from qualitygate.generators.base import Edit, Generator, State, sample_latents
from qualitygate.generators.module import ModuleGenerator
from qualitygate.generators.passes import scored_pass
from qualitygate.latents import Latents
from qualitygate.scores.low_rate import activation_rates
from qualitygate.testing.planted import Defect, MarkName, Planted, PlantedGenerator, load_planted, plant

Make = Callable[[], Generator]
MARKS: tuple[MarkName, ...] = ("blob", "stripes", "texture", "cast", "frame")
HARD = Defect(layer="4x4", units=3, share=0.2, mark="stripes")


def firing(planted: Planted, count: int = 64) -> Latents:
    latents = sample_latents(planted.generator, range(count), 5)
    return latents[np.flatnonzero(planted.truth.fires(latents).numpy())]


def silenced(planted: Planted, layer: int) -> dict[int, Edit]:
    """An edit that sets the planted units of one layer to 0."""

    def edit(activation: torch.Tensor) -> torch.Tensor:
        return activation.index_fill(1, torch.tensor(planted.truth.units[layer]), 0.0)

    return {layer: edit}


@pytest.mark.parametrize("shape", ["half_space", "slab"])
@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_shares_are_exact(shape: str, modes: int, share: float) -> None:
    planted = plant(dcgan(), Defect(share=share, shape=shape, modes=modes))  # type: ignore[arg-type]
    latents = sample_latents(planted.generator, range(40_000), 3)
    fired = int(planted.truth.fires(latents).sum())
    assert abs(fired - share * 40_000) < 4.0 * (share * (1 - share) * 40_000) ** 0.5


def test_each_mode_has_its_part() -> None:
    planted = plant(dcgan(), Defect(share=0.05, modes=3))
    directions = planted.generator.directions[:-1]
    torch.testing.assert_close(directions @ directions.T, torch.eye(3, dtype=torch.float64))
    x = sample_latents(planted.generator, range(40_000), 3).z.double() @ directions.T
    low, _ = planted.generator.planting.region.bounds
    parts = (x > low).double().mean(dim=0)
    assert ((parts - (1 - 0.95 ** (1 / 3))).abs() < 0.003).all()


@every_kind
def test_busy_units_are_not_rare_and_hang_together_all_the_same(make: Make) -> None:
    planted = plant(make(), Defect(layer=1, units=2, share=0.05, busy=True, mark="frame"))
    generator, truth = planted.generator, planted.truth
    rates = activation_rates(generator, tuple(truth.units), samples=1000, seed=4)
    for layer, units in truth.units.items():
        assert (rates.rates[layer][list(units)] > 0.4).all()
    latents = sample_latents(generator, range(256), 5)
    marked, repaired = generator.images(latents), truth.repaired(latents)
    # busy units cancel each other where they paint nothing: to rounding, whose order is the convolution's own
    assert torch.equal(((marked - repaired).abs() > 1e-4).flatten(1).any(dim=1), truth.defective(latents))
    for layer in truth.units:
        torch.testing.assert_close(generator.images(latents, silenced(planted, layer)), repaired, rtol=0, atol=1e-4)


def test_a_soft_edge_rises_and_a_sharp_one_jumps() -> None:
    levels = {}
    for edge in ("sharp", "soft", "linear"):
        planted = plant(dcgan(), Defect(share=0.1, edge=edge))  # type: ignore[arg-type]
        levels[edge] = planted.truth.level(firing(planted, 4000))
    assert float((levels["sharp"] == 1).double().mean()) > 0.9
    torch.testing.assert_close(levels["linear"].clamp(max=1.0), levels["soft"])
    assert levels["linear"].max() > 1.5
    assert 0.4 < float((levels["soft"] == 1).double().mean()) < 0.6  # half of the region lies deeper than its median


@every_kind
@pytest.mark.parametrize("shape", ["half_space", "slab"])
def test_units_fire_as_often_as_the_truth_says(make: Make, shape: str) -> None:
    planted = plant(make(), Defect(layer=1, units=2, share=0.05, shape=shape))  # type: ignore[arg-type]
    generator, truth = planted.generator, planted.truth
    rates = activation_rates(generator, tuple(truth.units), samples=2000, seed=4)
    fired = int(truth.fires(sample_latents(generator, range(2000), 4)).sum())
    assert truth.layer == 1
    assert tuple(truth.units) == tuple(range(1, len(generator.layers)))
    for layer, units in truth.units.items():
        counts = rates.counts[layer][list(units)]
        inside = generator.footprint(*counts.shape[1:])
        assert inside.any()
        assert (counts[:, inside] == fired).all()
        assert (counts[:, ~inside] == 0).all()


@every_kind
@pytest.mark.parametrize("layer", ["4x4", "8x8"])
def test_without_the_units_the_image_is_the_unplanted_one(make: Make, layer: str) -> None:
    planted = plant(make(), Defect(layer=layer, units=3, share=0.2, mark="stripes"), seed=2)
    latents = firing(planted)
    marked, repaired = planted.generator.images(latents), planted.truth.repaired(latents)
    differs = (marked != repaired).any(dim=1)
    assert differs.flatten(1).any(dim=1).all()
    assert not differs[:, ~planted.truth.pixels].any()
    for silent in planted.truth.units:
        assert torch.equal(planted.generator.images(latents, silenced(planted, silent)), repaired)


@every_kind
def test_samples_outside_the_region_are_untouched(make: Make) -> None:
    planted = plant(make(), HARD)
    latents = sample_latents(planted.generator, range(64), 5)
    changed = (planted.generator.images(latents) != planted.truth.repaired(latents)).flatten(1).any(dim=1)
    assert torch.equal(changed, planted.truth.defective(latents))
    assert 0 < int(changed.sum()) < 64


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_at_full_strength(mark: MarkName) -> None:
    planted = plant(dcgan(), Defect(share=0.3, mark=mark), seed=1)
    latents = firing(planted)
    full = latents[np.flatnonzero((planted.truth.level(latents) == 1).numpy())]
    opacity, colour = planted.generator.opacity, planted.generator.colour
    expected = torch.lerp(planted.truth.repaired(full), colour.expand(len(full), -1, -1, -1), opacity)
    torch.testing.assert_close(planted.generator.images(full), expected)
    share = float(planted.truth.pixels.double().mean())
    assert share == 1.0 if mark == "cast" else 0.05 < share < 0.5


def test_half_the_activation_paints_half_the_mark() -> None:
    planted = plant(dcgan(), Defect(units=2, share=0.3, mark="cast"))
    latents = firing(planted)
    marked, repaired = planted.generator.images(latents), planted.truth.repaired(latents)
    units = list(planted.truth.units[0])

    def halved(activation: torch.Tensor) -> torch.Tensor:
        return activation.index_fill(1, torch.tensor(units[:1]), 0.0)

    torch.testing.assert_close(planted.generator.images(latents, {0: halved}), (marked + repaired) / 2)


@every_kind
def test_a_decoy_fires_and_changes_no_pixel(make: Make) -> None:
    planted = plant(make(), Defect(units=2, share=0.2, mark=None))
    latents = firing(planted)
    units = list(planted.truth.units[0])
    with scored_pass():
        state = planted.generator.run(planted.generator.start(latents), 0)
        assert (state.activation[:, units] > 0).flatten(1).any(dim=1).all()
        assert torch.equal(planted.generator.images(latents), planted.truth.repaired(latents))
    assert not planted.truth.paints
    assert not planted.truth.pixels.any()
    assert not planted.truth.defective(latents).any()


@every_kind
def test_with_nothing_planted_the_generator_is_the_base(make: Make) -> None:
    base = make()
    planted = plant(base, Defect(units=0, share=0.2))
    latents = sample_latents(base, range(16), 5)
    assert torch.equal(planted.generator.images(latents), base.images(latents))
    assert (planted.truth.units, planted.truth.layer) == ({}, None)
    assert not planted.truth.fires(latents).any()


@every_kind
def test_states_can_be_cut_and_joined(make: Make) -> None:
    planted = plant(make(), HARD)
    latents = sample_latents(planted.generator, range(8), 5)
    with scored_pass():
        whole = planted.generator.images(latents)
        state = planted.generator.run(planted.generator.start(latents), 1)
        joined = State.concatenated([state.rows(torch.arange(4, 8)), state.rows(torch.arange(4))])
        torch.testing.assert_close(planted.generator.resume(joined), whole.roll(4, dims=0))


def test_the_project_finds_and_repairs_it() -> None:
    planted = plant(dcgan(), Defect(units=4, share=0.05, mark="frame"))
    latents = firing(planted, 256)
    rates = activation_rates(planted.generator, [0, 1, 2], samples=1000, seed=4)
    mended = sequential_ablation(planted.generator, latents, rates, rate=0.1)
    edge = planted.truth.pixels.expand(3, -1, -1)
    assert (mended[:, edge] > -1.0).all()


@every_kind
def test_saved_and_loaded(make: Make, tmp_path: Path) -> None:
    planted = plant(make(), Defect(layer=1, units=2, share=0.2, modes=2, mark="texture"), seed=7)
    save_generator(planted.generator, tmp_path / "planted.safetensors")
    loaded = load_planted(tmp_path / "planted.safetensors")
    latents = sample_latents(planted.generator, range(16), 5)
    assert torch.equal(loaded.generator.images(latents), planted.generator.images(latents))
    assert torch.equal(loaded.truth.repaired(latents), planted.truth.repaired(latents))
    assert torch.equal(loaded.truth.level(latents), planted.truth.level(latents))
    assert torch.equal(loaded.truth.pixels, planted.truth.pixels)
    assert loaded.truth.units == planted.truth.units
    assert loaded.generator.identity().name == "planted.safetensors"


@every_kind
def test_the_same_seed_plants_the_same(make: Make) -> None:
    first, again, other = (plant(make(), HARD, seed).generator for seed in (1, 1, 2))
    assert first.identity() == again.identity()
    assert first.planting == again.planting
    assert first.planting.units != other.planting.units
    assert not torch.equal(first.directions, other.directions)
    assert not torch.equal(first.opacity, other.opacity)


def test_hosts_are_of_the_layer_and_as_active_as_its_neurons_are() -> None:
    base = dcgan()
    planted = plant(base, Defect(units=5, share=0.2))
    assert [len(units) for units in planted.truth.units.values()] == [5, 1, 1]
    latents = firing(planted, 512)
    with scored_pass():
        activation = planted.generator.run(planted.generator.start(latents), 0).activation
    hosts = activation[:, list(planted.truth.units[0])]
    assert 0.5 < float(hosts[hosts > 0].mean() / activation[activation > 0].mean()) < 1.5


@pytest.mark.parametrize(("make", "lowest"), [(dcgan, 0.0), (pggan, -0.2)])
def test_inactive_units_are_what_the_family_makes_of_them(make: Make, lowest: float) -> None:
    planted = plant(make(), HARD)
    latents, layer = sample_latents(planted.generator, range(16), 5), planted.generator.layer("4x4").index
    with scored_pass():
        activation = planted.generator.run(planted.generator.start(latents), layer).activation
    hosts = activation[:, list(planted.truth.units[layer])] / planted.generator.planting.full[layer]
    assert float(hosts.amin()) == pytest.approx(lowest)
    assert float(hosts.amax()) == pytest.approx(1.0)


def test_what_cannot_be_planted() -> None:
    base = dcgan()
    with pytest.raises(InputError, match=r"at most half of the layer's 16"):
        plant(base, Defect(units=9))
    with pytest.raises(InputError, match=r"Not so many modes fit"):
        plant(base, Defect(modes=13))
    with pytest.raises(LayerError):
        plant(base, Defect(layer="64x64"))
    generator = plant(base, HARD).generator
    with pytest.raises(LatentsError, match=r"rule on z"):
        generator.begin(Latents(np.arange(1), None, torch.zeros(1, 12), space="w"))


def test_files_that_are_not_planted(tmp_path: Path) -> None:
    save_generator(dcgan(), tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match=r"Nothing is planted in .*plain\.safetensors"):
        load_planted(tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match=r"missing\.safetensors"):
        load_planted(tmp_path / "missing.safetensors")


def test_it_counts_as_of_its_bases_family(tmp_path: Path) -> None:
    """Whoever compares, chooses a policy or looks for a champion must not hold it for another architecture."""
    base = pggan()
    planted = plant(base, HARD).generator
    save_generator(planted, tmp_path / "planted.safetensors")
    for generator in (planted, load_generator(tmp_path / "planted.safetensors", family="pggan")):
        assert isinstance(generator, PlantedGenerator)
        assert (generator.family, generator.stored_as) == ("pggan", "planted")
        assert (generator.layers, generator.presets) == (base.layers, base.presets)
        assert generator.fingerprint() == planted.fingerprint() != base.fingerprint()


def test_planted_twice(tmp_path: Path) -> None:
    once = plant(dcgan(), Defect(units=2, share=0.3, mark="frame")).generator
    twice = plant(once, Defect(layer=1, units=2, share=0.3, mark="cast"), seed=3)
    save_generator(twice.generator, tmp_path / "twice.safetensors")
    loaded = load_planted(tmp_path / "twice.safetensors").generator
    latents = sample_latents(loaded, range(16), 5)
    assert torch.equal(loaded.images(latents), twice.generator.images(latents))
    assert not torch.equal(loaded.images(latents), once.images(latents))


def test_a_base_that_settings_cannot_build_is_not_saved(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.ConvTranspose2d(12, 8, 4), torch.nn.ReLU(), torch.nn.ConvTranspose2d(8, 3, 4, 2, 1))
    planted = plant(ModuleGenerator(network.eval(), ["1"], 12), Defect(units=2))
    with pytest.raises(InputError, match=r"family 'module' cannot be saved"):
        save_generator(planted.generator, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


Spoil = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda stored: stored.update(family="dcgam"), "no family we know"),
        (lambda stored: stored.update(family=["dcgan"]), "TypeError"),
        (lambda stored: stored.pop("planting"), "planting"),
        (lambda stored: stored.update(planting=None), "This is no planting"),
        (lambda stored: stored["settings"].update(weights=1), "unexpected keyword argument 'weights'"),
        (lambda stored: stored["planting"].update(code="os.system"), "Extra inputs"),
        (lambda stored: stored["planting"].update(slope=float("nan")), "slope"),
        (lambda stored: stored["planting"]["full"].update({"0": float("inf")}), "finite"),
        (lambda stored: stored["planting"]["full"].pop("0"), "full levels of layers"),
        (lambda stored: stored["planting"]["units"].pop("1"), "do not follow one another"),
        (lambda stored: stored["planting"]["units"].update({"0": [3, 3]}), "named twice"),
        (lambda stored: stored["planting"]["units"].update({"0": [-1]}), "greater than or equal to 0"),
        (lambda stored: stored["planting"]["units"].update({"0": [10**9]}), "no such unit"),
        (lambda stored: stored["planting"].update(units={"7": [0]}, full={"7": 1.0}), "a layer that the base does not have"),
        (lambda stored: stored["planting"]["region"].update(modes=10**18), "Not so many modes fit"),
        (lambda stored: stored["planting"]["region"].update(share=1.0), "share"),
        (lambda stored: stored["planting"]["region"].update(modes=2), "directions is"),
    ],
)
def test_damaged_metadata_is_named(spoil: Spoil, found: str, tmp_path: Path) -> None:
    """Whatever stands in the file, it is refused in words before anything of it is used."""
    generator = plant(dcgan(), HARD).generator
    document = json.loads(native.metadata(generator)[native.METADATA_KEY])
    spoil(document["settings"])
    path = tmp_path / "spoiled.safetensors"
    save_file(native.tensors(generator), path, {native.METADATA_KEY: json.dumps(document)})
    with pytest.raises(CheckpointError, match=rf"(?s)spoiled\.safetensors.*{found}"):
        load_generator(path)


def test_a_base_within_a_base_without_end(tmp_path: Path) -> None:
    generator = plant(dcgan(), HARD).generator
    document = json.loads(native.metadata(generator)[native.METADATA_KEY])
    for _ in range(300):
        document["settings"] = {**document["settings"], "family": "planted", "settings": document["settings"]}
    path = tmp_path / "deep.safetensors"
    save_file(native.tensors(generator), path, {native.METADATA_KEY: json.dumps(document)})
    with pytest.raises(CheckpointError, match=r"deep\.safetensors"):
        load_generator(path)


def test_the_command_line_says_that_it_is_planted(tmp_path: Path) -> None:
    generator = plant(dcgan(), Defect(units=3, share=0.01)).generator
    save_generator(generator, tmp_path / "planted.safetensors")
    document = describe(load_generator(tmp_path / "planted.safetensors"))
    assert document["family"] == "dcgan"
    assert document["planted"] == {"share": 0.01, "units": {0: 3, 1: 1, 2: 1}, "paints": True}
    assert describe(dcgan())["planted"] is None
