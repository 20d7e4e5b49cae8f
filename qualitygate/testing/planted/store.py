"""A planted generator as a file of our own. Every command reads it as it reads its base; here it comes back with its truth."""

from __future__ import annotations

from pathlib import Path

import torch

from qualitygate.checkpoints.load import load_generator
from qualitygate.checkpoints.save import save_generator
from qualitygate.errors import CheckpointError
from qualitygate.generators.planted import PlantedGenerator
from qualitygate.testing.planted.plant import Planted
from qualitygate.testing.planted.truth import Truth


def save_planted(generator: PlantedGenerator, path: str | Path) -> None:
    """Write a planted generator; the truth follows from it. See `save_generator`."""
    save_generator(generator, path)


def load_planted(path: str | Path, device: torch.device | str = "cpu") -> Planted:
    """A planted generator and what is known of it, from a file that `save_planted` wrote.

    Raises:
        CheckpointError: no such file, or not of a planted generator.
    """
    generator = load_generator(path, device)
    if not isinstance(generator, PlantedGenerator):
        raise CheckpointError(
            f"Nothing is planted in {path}", f"a {generator.family} without planted units", "a file written by save_planted"
        )
    return Planted(generator, Truth(generator))
