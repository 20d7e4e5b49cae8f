"""The metrics there are, and which way is better: the one place that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qualitygate import names
from qualitygate.errors import InputError


@dataclass(frozen=True)
class Metric:
    """A number of a set of images.

    Attributes:
        name: as in `qualitygate.names`.
        title: as in tables and figures.
        higher_is_better: which way is better.
        needs_real: whether it compares with real images.
    """

    name: str
    title: str
    higher_is_better: bool
    needs_real: bool


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(names.FID, "FID", False, needs_real=True),
        Metric(names.FID_INFINITY, "FID∞", False, needs_real=True),
        Metric(names.KID, "KID", False, needs_real=True),
        Metric(names.PRECISION, "precision", True, needs_real=True),
        Metric(names.RECALL, "recall", True, needs_real=True),
        Metric(names.DENSITY, "density", True, needs_real=True),
        Metric(names.COVERAGE, "coverage", True, needs_real=True),
        Metric(names.REALISM, "realism", True, needs_real=True),
        Metric(names.INCEPTION_SCORE, "IS", True, needs_real=False),
        Metric(names.PPL, "PPL", False, needs_real=False),
        Metric(names.PPL_Z_END, "PPL z, ends", False, needs_real=False),
        Metric(names.PPL_Z_FULL, "PPL z, full", False, needs_real=False),
        Metric(names.PPL_W_END, "PPL w, ends", False, needs_real=False),
        Metric(names.PPL_W_FULL, "PPL w, full", False, needs_real=False),
        Metric(names.DISCRIMINATOR, "D value", True, needs_real=False),
    )
}


def metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        InputError: there is none.
    """
    if name not in METRICS:
        raise InputError("There is no such metric", repr(name), f"one of {', '.join(METRICS)}")
    return METRICS[name]
