"""The metrics of sets of images that there are, which way is better and what each needs: the one place that says so.

Another package's metrics come through the entry points `qualitygate.metrics`, each a `qualitygate.metrics.metric.SetMetric`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from qualitygate import names
from qualitygate.errors import InputError

Need = Literal["real", "discriminator", "paths", "classes"]
"""What a metric cannot do without: real images, the checkpoint's discriminator, path lengths, or class probabilities."""


@dataclass(frozen=True)
class Metric:
    """A number of a set of images.

    Attributes:
        name: as it stands in records: a promise.
        title: as in tables and figures.
        higher_is_better: which way is better.
        needs: what it cannot do without, besides the images.
        where: class that computes it: module below `qualitygate.metrics`, a colon, its name; empty in another package.
        of_groups: measured of every group, and open to rules of a check; else only of a whole set, on demand.
    """

    name: str
    title: str
    higher_is_better: bool
    needs: Need
    where: str = ""
    of_groups: bool = True


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(names.FID, "FID", False, "real", "frechet:FrechetDistance"),
        Metric(names.FID_INFINITY, "FID∞", False, "real", "frechet:ExtrapolatedFrechetDistance", of_groups=False),
        Metric(names.KID, "KID", False, "real", "kernel:KernelDistance"),
        Metric(names.PRECISION, "precision", True, "real", "manifold:Precision"),
        Metric(names.RECALL, "recall", True, "real", "manifold:Recall"),
        Metric(names.DENSITY, "density", True, "real", "manifold:Density"),
        Metric(names.COVERAGE, "coverage", True, "real", "manifold:Coverage"),
        Metric(names.REALISM, "realism", True, "real", "manifold:Realism"),
        Metric(names.INCEPTION_SCORE, "IS", True, "classes", "inception_score:InceptionScore", of_groups=False),
        Metric(names.PPL, "PPL", False, "paths", "path_length:PathLength"),
        Metric(names.PPL_Z_END, "PPL z, ends", False, "paths", "path_length:PathLength", of_groups=False),
        Metric(names.PPL_Z_FULL, "PPL z, full", False, "paths", "path_length:PathLength", of_groups=False),
        Metric(names.PPL_W_END, "PPL w, ends", False, "paths", "path_length:PathLength", of_groups=False),
        Metric(names.PPL_W_FULL, "PPL w, full", False, "paths", "path_length:PathLength", of_groups=False),
        Metric(names.DISCRIMINATOR, "D value", True, "discriminator", "discriminator:DiscriminatorValue"),
    )
}
"""Ours."""


def all_metrics() -> Mapping[str, Metric]:
    """Ours, and those of other packages that are installed."""
    return METRICS | {name: one.info for name, one in _plugins().items()}


def metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        InputError: there is none.
    """
    if name in METRICS:
        return METRICS[name]
    if name not in (known := all_metrics()):
        raise InputError("There is no such metric", repr(name), f"one of {', '.join(known)}", "install the package that it comes from")
    return known[name]


def plugin(name: str) -> Any:
    """The set metric of that name from another package: a `qualitygate.metrics.metric.SetMetric`."""
    return _plugins()[name]


@cache
def _plugins() -> Mapping[str, Any]:
    return {one.info.name: one for one in (entry.load() for entry in entry_points(group="qualitygate.metrics"))}
