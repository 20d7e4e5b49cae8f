"""Extractors and distances by name."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from qualitygate.errors import InputError
from qualitygate.features import vgg16
from qualitygate.features.dinov2 import SIZE, DINOv2Extractor, dinov2_of
from qualitygate.features.extractor import Extractor, PerceptualDistance, averaged_down, smooth_resized, tf1_resized
from qualitygate.features.inception import InceptionExtractor, inception_of
from qualitygate.features.module import DiscriminatorExtractor, extractor_at
from qualitygate.features.weights import Source, Weights, read_weights
from qualitygate.generators.base import Discriminator

Device = torch.device | str | None
Network = TypeVar("Network", bound=nn.Module)
_READING = ("inception", "vgg16", "dinov2", "lpips")  # what cannot be made without a weight file
_RANDOM = re.compile(r"random-vgg16-(?!0+$)(\d{1,4})")
EXTRACTORS = ("inception", "vgg16", "dinov2", "random-vgg16-SIZE", "discriminator", "module:package.module:attribute[@SIZE]")
DISTANCES = ("lpips", "random-vgg16-SIZE")


def _on(network: Network, device: Device) -> Network:
    """The network on a device; one that others may hold too is not moved but copied."""
    return network if torch.device(device or "cpu").type == "cpu" else copy.deepcopy(network).to(device)


def make_extractor(
    spec: str,
    *,
    weights: Source | Sequence[Source] | None = None,
    sha256: str | None = None,
    device: Device = None,
    discriminator: Discriminator | None = None,
) -> Extractor:
    """The extractor of a name.

    Args:
        spec: ``inception`` (Inception-v3 of 2015-12-05, for FID, KID and the inception score), ``vgg16`` (fc2, for precision and
            recall), ``dinov2`` (its class token, for all but the inception score), ``random-vgg16-SIZE`` (e.g. ``random-vgg16-32``; needs
            no weights), ``discriminator`` (what the checkpoint's own sees), or ``module:package.module:attribute``, ``@SIZE`` after it
            where it wants images of one size (see `module`).
        weights: the network's weight file: a path, or ``https://…#sha256=…``; `inception`, `vgg16` and `dinov2` say which are
            known.
        discriminator: the checkpoint's own; it works where it is, all others on the device.

    Raises:
        InputError: no such name, or weights missing or given in vain.
        CheckpointError: a file with other weights.
    """
    if spec == "inception":
        given = _read(spec, weights, sha256)
        key = f"inception, weights {given.sha256}, TF1 bilinear to 299, float32"
        return InceptionExtractor(_on(inception_of(given), device), key)
    if spec == "vgg16":
        given = _read(spec, weights, sha256)
        key = f"vgg16, weights {given.sha256}, TF1 bilinear to 224, float32"
        return vgg16.VGG16Extractor(_on(vgg16.vgg16_of(given), device), key, tf1_resized)
    if spec == "dinov2":
        given = _read(spec, weights, sha256)
        key = f"dinov2, weights {given.sha256}, antialiased bicubic to {SIZE} in 8 bits, float32"
        return DINOv2Extractor(_on(dinov2_of(given), device), key)
    if spec == "discriminator":
        if discriminator is None:
            what, remedy = "The checkpoint has no discriminator to look with", "name another --extractor"
            raise InputError(what, "a generator alone", "a file that holds both", remedy)
        return DiscriminatorExtractor(discriminator)
    _refuse_weights(spec, weights, EXTRACTORS)
    if found := _RANDOM.fullmatch(spec):
        return vgg16.VGG16Extractor(_on(vgg16.random_vgg16(int(found[1])), device), f"{spec}, float32", smooth_resized)
    if spec.startswith("module:"):
        return extractor_at(spec.removeprefix("module:"), device)
    raise InputError("There is no extractor of this name", repr(spec), f"one of {', '.join(EXTRACTORS)}", "use one of these names")


def reads_weights(spec: str) -> bool:
    """Whether the extractor of this name cannot be made without a weight file."""
    return spec in _READING


def make_distance(
    spec: str, *, weights: Source | Sequence[Source] | None = None, sha256: str | None = None, device: Device = None
) -> PerceptualDistance:
    """The perceptual distance of a name: ``lpips`` (LPIPS with VGG16; images from 512 on are averaged down to 256 first; may need two
    files, see `vgg16`), or ``random-vgg16-SIZE`` (needs no weights; a stand-in, to be compared with nothing but itself). Errors as of
    `make_extractor`."""
    if spec == "lpips":
        given = _read(spec, weights, sha256)
        key = f"lpips-vgg16, weights {given.sha256}, averaged down to 256, float32"
        return vgg16.StageDistance(_on(vgg16.convolutions_of(given), device), key, averaged_down, vgg16.lpips_weights_of(given))
    _refuse_weights(spec, weights, DISTANCES)
    if found := _RANDOM.fullmatch(spec):
        resize = partial(smooth_resized, size=int(found[1]))
        return vgg16.StageDistance(_on(vgg16.random_convolutions(), device), f"{spec} distance, float32", resize)
    raise InputError("There is no perceptual distance of this name", repr(spec), f"one of {', '.join(DISTANCES)}", "use one of these names")


def _read(spec: str, weights: Source | Sequence[Source] | None, sha256: str | None) -> Weights:
    if weights is None:
        needed, remedy = "a path, or https://…#sha256=…", "give the file, or use random-vgg16-SIZE, which needs none"
        raise InputError(f"{spec} needs its weights", "no weight file", needed, remedy)
    return read_weights(weights, sha256)


def _refuse_weights(spec: str, weights: object, known: Sequence[str]) -> None:
    """A weight file that nothing would read was meant for something else."""
    if weights is not None:
        reading = ", ".join(name for name in known if name in _READING)
        raise InputError(f"{spec} reads no weight file", "one was given", f"no weights, or one of {reading}")
