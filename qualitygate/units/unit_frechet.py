"""FID-based units (Bau et al. 2019; Tousi et al., CVPR 2021, section 3.1): how far from real the images are that a unit fires most for.

A high FID of those images makes a unit an artifact unit. The sets are small, so that every one of these FIDs is too high; they
are so by about the same for all units, which have sets of one size. How much is measured with random sets of that size and stands in the
settings, as `random`: a unit whose FID is not above it fires for images like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.features.extractor import extract
from qualitygate.generators.passes import on_host
from qualitygate.units.concepts import TopSamples
from qualitygate.units.score import UnitScores
from qualitygate.units.table import UnitInputs, UnitScore

RANDOM_SETS = 8
"""Random sets by which the bias is measured."""
_MEMORY = 2**28  # bytes that the sets of some units may take at once


def unit_frechet(
    features: np.ndarray,
    top: Mapping[int, TopSamples],
    reference: np.ndarray,
    *,
    extractor: str,
    against: str,
    device: torch.device | str = "cpu",
) -> UnitScores:
    """FID of every unit's most active images. Raises `InputError` for features of different lengths, or of fewer than two images.

    Args:
        features: of the generated images, (N, F), in the order of the samples that ``top`` was chosen from.
        top: the most active samples of every unit by layer, as many for every unit.
        reference: features of what they are held against, (M, F): real images, or, where there are none, the generator's own.
        extractor, against: key of the extractor, and in words what the reference is.
        device: where the distances are worked out.
    """
    sizes = {one.rows.shape[1] for one in top.values()}
    if features.shape[1] != reference.shape[1] or len(sizes) != 1 or min(*sizes, len(reference)) < 2:
        found = f"features {features.shape} and {reference.shape}, sets of {sorted(sizes)}"
        needed = "features of one extractor, sets of one size of at least 2 images"
        raise InputError("These sets of images cannot be compared", found, needed)
    (size,) = sizes
    draw = np.random.default_rng(0)
    random = torch.from_numpy(np.stack([draw.permutation(len(features))[:size] for _ in range(RANDOM_SETS)]))
    sets = [random, *(one.rows for one in top.values())]
    generated, held_against, rows = (one.to(device) for one in (torch.from_numpy(features), torch.from_numpy(reference), torch.cat(sets)))
    distances = on_host(_distances(generated, held_against, rows))
    at_random, *of_layers = distances.split([len(one) for one in sets])
    return UnitScores.of_layers(
        dict(zip(top, of_layers, strict=True)),
        names.UNIT_FRECHET,
        {
            "images": size,
            "samples": len(features),
            "reference": len(reference),
            "against": against,
            "extractor": extractor,
            "random": {"mean": float(at_random.mean()), "deviation": float(at_random.std()), "sets": RANDOM_SETS},
        },
    )


def _distances(features: Tensor, reference: Tensor, sets: Tensor) -> Tensor:
    """Fréchet distances float64 (sets,) of many small sets of features, given by their rows (sets, size), from one reference.

    With ``C = X'X/n`` for the centred features X of a set, and ``R = LL'`` for the reference, the trace of ``√(CR)`` is the sum of the
    roots of the eigenvalues of ``(XL)(XL)'/n``: a matrix of the size of the set, in place of one of the number of features for every
    unit. The features are multiplied by L once. Covariances are divided by N, as in `qualitygate.metrics`.
    """
    centre = reference.double().mean(dim=0)
    centred = reference.double() - centre
    covariance = centred.T @ centred / len(centred)
    values, vectors = torch.linalg.eigh(covariance)
    features = features.double() - centre
    mapped = features @ (vectors * values.clamp(min=0.0).sqrt())
    size, width = sets.shape[1], features.shape[1]
    distances = []
    for rows in sets.split(max(1, _MEMORY // (8 * size * max(width, size)))):
        chosen, of_set = features[rows], mapped[rows]
        mean = chosen.mean(dim=1, keepdim=True)
        trace = (chosen - mean).square().sum(dim=(1, 2)) / size
        of_set = of_set - of_set.mean(dim=1, keepdim=True)
        gram = (of_set @ of_set.mT if size < width else of_set.mT @ of_set) / size
        shared = torch.linalg.eigvalsh(gram).clamp(min=0.0).sqrt().sum(dim=1)
        distances.append((mean.square().sum(dim=(1, 2)) + trace + covariance.trace() - 2.0 * shared).clamp(min=0.0))
    return torch.cat(distances)


def _against_real(inputs: UnitInputs) -> UnitScores:
    """GAN Dissection takes 10,000 images of 200,000 samples."""
    with inputs.reporter.phase("features", len(inputs.samples)) as progress:
        features = extract(inputs.extractor, inputs.images(inputs.samples), progress)
    reference, against = features, "the generator's own samples"
    if inputs.real is not None:
        with inputs.reporter.phase("real images", len(inputs.real)) as progress:
            reference, against = extract(inputs.extractor, inputs.real, progress), inputs.real.name
    return unit_frechet(
        features, inputs.top_samples, reference, extractor=inputs.extractor.key, against=against, device=inputs.generator.device
    )


FRECHET = UnitScore("frechet", _against_real, needs=("extractor",))
