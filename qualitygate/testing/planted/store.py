"""A planted generator as one safetensors file: the base's tensors and the plant's, and in the metadata how both are built."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_bytes

from qualitygate import storage
from qualitygate.checkpoints.layout import Built, assemble
from qualitygate.checkpoints.layouts.native import METADATA_KEY, metadata
from qualitygate.checkpoints.load import file_sha256
from qualitygate.errors import CheckpointError, InputError
from qualitygate.generators import families
from qualitygate.generators.base import Origin
from qualitygate.testing.planted.generator import PlantedGenerator, Planting
from qualitygate.testing.planted.plant import Planted
from qualitygate.testing.planted.truth import Truth


def save_planted(generator: PlantedGenerator, path: str | Path) -> None:
    """Write a planted generator; the truth follows from it.

    Raises:
        InputError: the base is of a family that its settings cannot build again.
        StorageError: it cannot be written.
    """
    if generator.base.family not in families.generators():
        raise InputError("This base cannot be saved", f"family {generator.base.family}",
                         f"one of {', '.join(families.generators())}")  # fmt: skip
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    storage.write_bytes(Path(path), tensors_bytes(tensors, metadata(generator)))


def load_planted(path: str | Path, device: torch.device | str = "cpu") -> Planted:
    """Read what `save_planted` wrote.

    Raises:
        CheckpointError: no such file, or not a planted generator.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            stored = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        settings = stored["settings"]
        with torch.device("meta"):
            base = families.generators()[settings["family"]](**settings["settings"])
            generator = PlantedGenerator(base, Planting.model_validate(settings["planting"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(
            f"Cannot read a planted generator from {path}",
            f"{type(error).__name__}: {error}",
            "a file written by save_planted",
        ) from error
    generator = assemble(Built(generator, tensors), path.name).to(device)
    generator.origin = Origin(path.name, file_sha256(path))
    return Planted(generator, Truth(generator))
