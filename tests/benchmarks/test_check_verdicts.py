"""The candidates are what they say, and the table says what the records did. Whole checks: `tests/end_to_end/test_check_verdicts.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from cli.conftest import dcgan_state_dict

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # after the tests: `metrics` is there too

from candidates import Candidate, candidates, planted
from check_verdicts import Row, page

from qualitygate.checkpoints.load import load_generator
from qualitygate.errors import CheckpointError
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.testing.planted import PlantedGenerator

BY_NAME = {one.name: one for one in candidates()}


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("champion") / "champion.pt"
    torch.save({"netG_state_dict": dcgan_state_dict()}, path)
    return path


def activations(generator: Generator, layer: int) -> torch.Tensor:
    return generator.run(generator.start(sample_latents(generator, range(64), 1)), layer).activation


@pytest.mark.parametrize("name", ["noise-1", "noise-5", "noise-30", "zeroed", "statistics", "kernel", "biases"])
def test_a_changed_state_dict_is_another_dcgan(name: str, champion: Path, tmp_path: Path) -> None:
    base, changed = load_generator(champion), load_generator(BY_NAME[name].write(champion, tmp_path / name))
    assert (changed.family, changed.settings) == (base.family, base.settings)
    latents = sample_latents(base, range(4), 1)
    assert not torch.equal(changed(latents), base(latents))
    assert changed.identity().sha256 != base.identity().sha256


def test_a_candidate_is_the_same_every_time(champion: Path, tmp_path: Path) -> None:
    made = [load_generator(BY_NAME["noise-5"].write(champion, tmp_path / f"{n}")).fingerprint() for n in range(2)]
    assert made[0] == made[1]


def test_zeroed_units_never_fire_and_the_others_do(champion: Path, tmp_path: Path) -> None:
    fires = activations(load_generator(BY_NAME["zeroed"].write(champion, tmp_path / "z")), 1).amax(dim=(0, 2, 3)) > 0
    assert not fires[::3].any()
    assert fires.sum() >= len(fires) // 2


@pytest.mark.parametrize("name", ["kernel", "biases"])
def test_late_damage_leaves_the_layers_below_it_alone(name: str, champion: Path, tmp_path: Path) -> None:
    """Which is why counts in these layers cannot see it."""
    base, changed = load_generator(champion), load_generator(BY_NAME[name].write(champion, tmp_path / name))
    assert torch.equal(activations(changed, 1), activations(base, 1))


def test_the_rest(champion: Path, tmp_path: Path) -> None:
    assert BY_NAME["same"].write(champion, tmp_path / "same").read_bytes() == champion.read_bytes()
    assert isinstance(load_generator(planted(3)(champion, tmp_path / "planted")), PlantedGenerator)
    base, other = load_generator(champion), load_generator(BY_NAME["family"].write(champion, tmp_path / "family"))
    assert (other.family, other.latent_size, other.image_shape) == ("pggan", base.latent_size, base.image_shape)
    with pytest.raises(CheckpointError, match="cut off"):
        load_generator(BY_NAME["truncated"].write(champion, tmp_path / "truncated"))


def test_the_table() -> None:
    def row(name: str, code: int, *states: str) -> Row:
        candidate: Candidate = BY_NAME[name]
        rules = [
            {"id": f"{state}-{n}", "severity": severity, "state": state, "value": 1.0, "baseline": 1.0}
            for n, (state, severity) in enumerate(one.split() for one in states)
        ]
        return Row(name, candidate.what, candidate.harmed, code, rules, 512, 1, 3.0)

    refused = Row("truncated", "half of it", True, 2, [], 0, 0, 1.0, "error: cut off")
    made = page(
        "About.",
        [
            row("same", 0),
            row("zeroed", 1, "failed critical", "failed warning"),
            row("kernel", 0),
            row("biases", 0, "failed warning"),
            row("noise-1", 4, "inconclusive critical"),
            refused,
        ],
    )
    assert "| same | the same file | 0 | passed | – | – | – | 512 | 3 |" in made
    assert "| 1 | **failed** | failed-0 | failed-1 | – | 512 | 3 |" in made
    assert "| 4 | *inconclusive* | – | – | inconclusive-0 | 512 | 3 |" in made
    assert "| 2 | **refused** | – | – | – | error: cut off | 1 |" in made
    assert "**Harmed, and passed without a warning**: kernel (" in made
    assert "**Harmed, and passed with a warning**: biases (" in made
    assert "**Not harmed, and failed, left open or warned of**: noise-1 (" in made
