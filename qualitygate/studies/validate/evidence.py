"""Every kind of evidence there is about the samples: labels, real images, a planted defect, the discriminator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from qualitygate.errors import InputError
from qualitygate.generators.base import sample_latents
from qualitygate.generators.passes import Reporter
from qualitygate.records.evidence import Kind
from qualitygate.studies.validate.findings import Judged
from qualitygate.studies.validate.look import Looked
from qualitygate.studies.validate.planted import planted_evidence
from qualitygate.studies.validate.request import Request, Tools
from qualitygate.studies.validate.scores import score_table
from qualitygate.units.labels import Labels


def evidence(tools: Tools, request: Request, looked: Looked, reporter: Reporter) -> Iterator[Judged]:
    """The evidence, the strongest first, whether or not there is enough of it."""
    if tools.labels is not None:
        yield _labelled(tools, tools.labels, request.curvature, reporter)
    yield from _against_real(looked)
    wanted = request.planted
    if wanted or (wanted is None and tools.labels is None and tools.real is None):
        yield planted_evidence(tools.generator, tools.profile, looked.latents, request.seed, reporter)
    if (values := looked.subject.population.discriminator) is not None:
        what = "the quarter of the samples that the discriminator likes least (weak evidence)"
        yield Judged.by_quality(Kind.DISCRIMINATOR, what, values, looked.table, looked.by_class.settings)


def enough_of(judged: Sequence[Judged], remarks: Sequence[str]) -> list[Judged]:
    """The evidence that has bad and good samples in both halves.

    Args:
        judged: all there is.
        remarks: what there is to say of it.

    Raises:
        InputError: there is none such.
    """
    kept = [one for one in judged if one.enough]
    if not kept:
        raise InputError(
            "There is no evidence to hold the scores against",
            "; ".join(remarks) or "none was given",
            "labels, real images, a discriminator or a planted defect, with bad and good samples in both halves",
            "give --labels or --real, or more --samples",
        )
    return kept


def remarks_on(judged: Sequence[Judged]) -> list[str]:
    """What to bear in mind of each kind, and which there is too little of."""
    return [
        *(one.caveat for one in judged if one.caveat is not None),
        *(
            f"too few samples of one kind: {one.what} ({one.source.bad:,} of {one.source.samples:,} bad)"
            for one in judged
            if not one.enough
        ),
    ]


def _labelled(tools: Tools, labels: Labels, curvature: int, reporter: Reporter) -> Judged:
    """What people said, of samples of their own."""
    info = tools.profile.info
    seed = info.calibration.seed if tools.label_seed is None else tools.label_seed
    latents = sample_latents(tools.generator, labels.ids, seed, sampling=info.sampling)
    return Judged(
        Kind.LABELS,
        f"samples called artifacts in {labels.source}",
        labels.artifact.astype(np.float64),
        labels.artifact,
        score_table(tools.generator, tools.profile, latents, curvature, reporter),
        caveat="labels: if the labelled samples were chosen by a score, that score's numbers are those of the chosen ones",
    )


def _against_real(looked: Looked) -> Iterator[Judged]:
    """How the images stand to real ones."""
    standing, real = looked.subject.standing, looked.real
    if standing is None or real is None:
        return
    against = f"against {real.samples:,} of {real.name}"
    yield Judged.by_quality(
        Kind.REALISM,
        f"the quarter of the samples with the lowest realism score {against}",
        standing.realism,
        looked.table,
        looked.by_class.settings,
    )
    inside = standing.inside
    yield Judged(
        Kind.PRECISION,
        f"samples outside of the real images' neighbourhoods {against}",
        1.0 - inside,
        inside < 0.5,
        looked.table,
        looked.by_class.settings,
    )
