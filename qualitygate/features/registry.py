"""Extractors and distances by name."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import torch

from qualitygate.errors import InputError
from qualitygate.features.extractor import Extractor, PerceptualDistance
from qualitygate.features.preparation import smooth_resized
from qualitygate.features.random_vgg16 import random_vgg16
from qualitygate.features.stages import StageDistance, even_weights
from qualitygate.features.vgg16 import VGG16, VGG16Extractor

_RANDOM = re.compile(r"random-vgg16-(\d{1,4})")
_PRECISION = "float32"


def make_extractor(
    spec: str,
    *,
    weights: str | Path | None = None,
    sha256: str | None = None,
    device: torch.device | str | None = None,
) -> Extractor:
    """The extractor of a name.

    Args:
        spec: ``random-vgg16-SIZE`` (e.g. ``random-vgg16-32``; needs no weights).
        weights: file with the network's weights: a path, or ``https://…#sha256=…``.
        sha256: of that file, in hexadecimal.
        device: where it works; default the CPU.

    Raises:
        InputError: no such name, or weights missing or given in vain.
        CheckpointError: a file with other weights.
    """
    if (size := _random_size(spec)) is not None:
        return VGG16Extractor(_random(size, device), f"random-vgg16-{size}, {_PRECISION}", smooth_resized)
    raise _unknown(spec, "extractor", "random-vgg16-SIZE")


def make_distance(
    spec: str,
    *,
    weights: str | Path | None = None,
    sha256: str | None = None,
    device: torch.device | str | None = None,
) -> PerceptualDistance:
    """The perceptual distance of a name.

    Args:
        spec: ``random-vgg16-SIZE`` (needs no weights; a stand-in, to be compared with nothing but itself).
        weights, sha256, device: as in `make_extractor`.

    Raises:
        InputError, CheckpointError: as in `make_extractor`.
    """
    if (size := _random_size(spec)) is not None:
        key = f"random-vgg16-{size} distance, {_PRECISION}"
        return StageDistance(_random(size, device), even_weights(), key, smooth_resized)
    raise _unknown(spec, "perceptual distance", "random-vgg16-SIZE")


def _random_size(spec: str) -> int | None:
    found = _RANDOM.fullmatch(spec)
    return int(found[1]) if found else None


def _random(size: int, device: torch.device | str | None) -> VGG16:
    network = random_vgg16(size)
    return network if torch.device(device or "cpu").type == "cpu" else copy.deepcopy(network).to(device)


def _unknown(spec: str, what: str, known: str) -> InputError:
    return InputError(f"There is no {what} of this name", repr(spec), known, "use one of these names")
