"""What `corrections` compares and on which samples, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qualitygate.cli import looking, output
from qualitygate.cli.looking import DISCRIMINATOR
from qualitygate.cli.options import chosen_device, load, load_both
from qualitygate.cli.source import Source

if TYPE_CHECKING:
    from qualitygate.features.extractor import Extractor
    from qualitygate.features.images import ImageSet
    from qualitygate.gating.profile import Profile
    from qualitygate.generators.base import Generator
    from qualitygate.policy.corrections import Correction
    from qualitygate.policy.model import Policy
    from qualitygate.studies.corrections.run import CorrectionStudy, Samples

NONE = "none"
"""In place of an extractor."""


def chosen_corrections(
    policy: Policy, methods: list[str] | None, strengths: list[str] | None, edit: list[str] | None, own_cla: bool, unit_scores: list[str]
) -> dict[str, Correction]:
    """Methods × units × layers × strengths, by name."""
    from qualitygate.policy.corrections import methods as known_methods
    from qualitygate.studies.corrections.choice import study_corrections

    by_method = dict(_of_method(one) for one in strengths or ())
    _known_methods([*(methods or ()), *by_method])
    layers = [tuple(int(layer) for layer in _numbers(one, "layers")) for one in edit or ()]
    return study_corrections(
        policy, methods or list(known_methods()), own_cla=own_cla, unit_scores=unit_scores, strengths=by_method, layers=layers
    )


def grid_corrections(policy: Policy, profile: Profile, text: str) -> dict[str, Correction]:
    """Low-rate beside high-rate ablation at some R, by name."""
    from qualitygate.errors import InputError
    from qualitygate.gating.profile import detection_layers
    from qualitygate.studies.corrections.choice import rate_grid

    rates = _numbers(text, "rates")
    if not all(0.0 < rate <= 1.0 for rate in rates):
        raise InputError("These are no rates", repr(text), "numbers in (0, 1] with commas, for example --grid 0.1,0.3,0.5")
    return rate_grid(policy, detection_layers(policy, profile.info.chain), rates)


def _known_methods(given: list[str]) -> None:
    from qualitygate.errors import InputError
    from qualitygate.policy.corrections import methods

    if unknown := sorted(set(given) - set(methods())):
        raise InputError("There is no such correction", ", ".join(unknown), f"one of {', '.join(methods())}")


def _of_method(text: str) -> tuple[str, tuple[float, ...]]:
    method, _, values = text.partition("=")
    return method, tuple(_numbers(values, "strengths"))


def _numbers(text: str, what: str) -> list[float]:
    from qualitygate.errors import InputError

    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise InputError(f"These are no {what}", repr(text), "numbers with commas, for example 0.1,0.3") from None


def with_units(profile: Profile, folder: Path | None) -> tuple[Profile, list[str]]:
    """The profile with the unit scores of a folder, and the names of their columns."""
    if folder is None:
        return profile, []
    from qualitygate.names import given_unit_score
    from qualitygate.tracking.studies import UNITS
    from qualitygate.units.score import load_unit_scores

    scores = load_unit_scores(folder / UNITS)
    return profile.with_unit_scores(scores.values()), [given_unit_score(one) for one in scores]


def worst(generator: Generator, profile: Profile, policy: Policy, samples: int, pool: int, seed: int) -> Samples:
    """The worst of a pool."""
    from qualitygate.studies.corrections.run import worst_samples

    with output.reporter().phase("worst samples", pool) as progress:
        return worst_samples(generator, profile, policy, samples, pool, seed, progress)


def labelled(generator: Generator, profile: Profile, labels: Path, seed: int | None, most: int) -> Samples:
    """The artifacts of some labels, at most so many."""
    import numpy as np

    from qualitygate.studies.corrections.run import said_samples
    from qualitygate.units.labels import read_labels

    said = read_labels(labels)
    kept = ~said.artifact | (np.cumsum(said.artifact) <= most)
    seed = profile.info.calibration.seed if seed is None else seed
    return said_samples(generator, profile, said.ids[kept], said.artifact[kept], seed, said.source)


def planted_generator(source: Source, device: str) -> tuple[Generator, dict[str, Any]]:
    """The planted generator of a file, and observers of the truth."""
    from qualitygate.errors import InputError
    from qualitygate.studies.corrections.run import truth_observers
    from qualitygate.testing.planted import PlantedGenerator, Truth

    generator = load(source, device)
    if not isinstance(generator, PlantedGenerator):
        raise InputError(
            f"Nothing is planted in {source.checkpoint}",
            f"a {generator.family} without planted units",
            "a file written by save_planted",
            "leave --planted out",
        )
    truth = Truth(generator)
    return generator, truth_observers(truth.repaired, truth.pixels) if truth.paints else {}


def defective(generator: Generator, profile: Profile, most: int, pool: int, seed: int) -> Samples:
    """The defective samples of a pool, by the truth."""
    import numpy as np

    from qualitygate.generators.base import sample_latents
    from qualitygate.studies.corrections.run import said_samples
    from qualitygate.testing.planted import PlantedGenerator, Truth

    assert isinstance(generator, PlantedGenerator)
    profile.check_seed(seed)
    ids = np.arange(pool)
    latents = sample_latents(generator, range(pool), seed, sampling=profile.info.sampling)
    broken = Truth(generator).defective(latents).numpy()
    kept = ~broken | (np.cumsum(broken) <= most)
    return said_samples(generator, profile, ids[kept], broken[kept], seed, "the truth about what was planted")


def extractor_of(name: str, weights: str | None, source: Source, device: str) -> Extractor:
    """The extractor of a name."""
    from qualitygate.errors import InputError

    where = chosen_device(device)
    if name == NONE:
        raise InputError(
            "Real images need features to be held against",
            "--real without --extractor",
            "both",
            "give --extractor, for example random-vgg16-64",
        )
    discriminator = load_both(source, where)[1] if name == DISCRIMINATOR else None
    return looking.extractor_of(name, weights, discriminator, where)


def real_of(real: str | None, generator: Generator) -> ImageSet | None:
    """The real images, or None."""
    return None if real is None else looking.real_images(real, generator.image_shape[1])


def steps_of(generator: Generator, profile: Profile, policy: Policy, made: CorrectionStudy, show: int) -> bytes | None:
    """The sheet of sequential steps at the R that samples are judged at; None where no neuron is low-rate there."""
    import io

    from qualitygate.errors import InputError
    from qualitygate.gating.profile import detection_layers
    from qualitygate.studies.corrections.folder import steps_sheet

    layers = detection_layers(policy, profile.info.chain)
    written = io.BytesIO()
    try:
        sheet = steps_sheet(generator, made.samples.latents[:show], profile.rates, policy.headline_rate, layers)
    except InputError:
        return None
    sheet.save(written, "PNG")
    return written.getvalue()
