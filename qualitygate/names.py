"""Every name that outlives a run: columns of tables, MLflow metrics, tables and image keys. They are promises.

Layers are named by index. Rates are written the short way (``0.1``, not ``0.10``). All names are valid MLflow metric names.
"""

from __future__ import annotations

import re

# columns of samples.parquet and calibration.parquet
ID = "id"
SEED = "seed"
LABEL = "label"
VERDICT = "verdict"
REASONS = "reasons"
BORDERLINE = "borderline"
STRENGTH = "strength"
MOVED = "moved"
IMAGE_FINITE = "image_finite"  # 1 or 0; NaN where no image was made
NEVER_SEEN = "never_seen_active"

# columns of units.parquet
UNIT_KEY = "unit_key"
LAYER = "layer"
UNIT = "unit"
UNIT_CLA = "cla"
UNIT_CLA_PLAIN = "cla_plain_mean"
UNIT_LOW_RATE = "low_rate_activity"
UNIT_RATE = "activation_rate"
UNIT_DEAD = "dead_share"
UNIT_DEFECTIVE = "defective_score"
UNIT_FRECHET = "unit_fid"
UNIT_CONTRIBUTION = "negative_contribution"  # to the discriminator's value: the sign is turned, higher = more suspect

# metrics of a gated set, in summary.json and in MLflow
ASKED = "samples"
ACCEPTED_SHARE = "accepted_share"
CORRECTED_SHARE = "corrected_share"
REJECTED_SHARE = "rejected_share"
BORDERLINE_SHARE = "borderline_share"
YIELD = "yield"
SECONDS = "seconds"
IMAGES_PER_SECOND = "images_per_second"

_LAYER = r"(?:/layer_(0|[1-9][0-9]*))"  # how `_of_layer` writes it

# places in MLflow
RANKING_TABLE = "unit_ranking.json"
SHEET_KEYS = ("gallery/best", "gallery/worst", "gallery/corrected", "gallery/rejected", "gallery/borderline")


def rate(value: float) -> str:
    """A rate as it stands in names: ``0.1``."""
    return f"{value:g}"


def low_rate(at: float, layer: int | None = None) -> str:
    """Active low-rate neurons at R = ``at``: of one layer, or summed over the detection layers."""
    return _of_layer(f"low_rate_{rate(at)}", layer)


def never_seen(layer: int | None = None) -> str:
    """Active neurons that never fired in the estimate of the rates: of one layer, or summed over the detection layers."""
    return _of_layer(NEVER_SEEN, layer)


def cla(layer: int) -> str:
    """Sample score of the curvature of local activation at one layer."""
    return _of_layer("cla", layer)


def trial(strength: float, column: str) -> str:
    """What a correction at ``strength`` was judged on: ``ablation_0.2/low_rate_0.1/layer_3``."""
    return f"ablation_{rate(strength)}/{column}"


def tried(strength: float) -> str:
    """Whether a correction at ``strength`` was tried on the sample."""
    return trial(strength, "tried")


def quantile(column: str, q: float) -> str:
    """Summary metric: a quantile of a score over a set."""
    return f"{column}/q{q:g}"


def low_rate_at(column: str) -> float | None:
    """R of a low-rate column, or None if it is another score, or not written as we write it."""
    found = re.fullmatch(rf"low_rate_([0-9]*\.?[0-9]+){_LAYER}?", column)
    return float(found[1]) if found and rate(float(found[1])) == found[1] else None


def unit_key(layer: int, unit: int) -> str:
    """A unit as one word, by which tables of two checkpoints are joined: ``layer2/unit17``."""
    return f"layer{layer}/unit{unit}"


def cla_layer(column: str) -> int | None:
    """Layer of a CLA column, or None if it is another score."""
    found = re.fullmatch(rf"cla{_LAYER}", column)
    return int(found[1]) if found else None


def is_never_seen(column: str) -> bool:
    """Whether a column counts never-seen neurons."""
    return re.fullmatch(rf"{NEVER_SEEN}{_LAYER}?", column) is not None


def layer_of(column: str) -> int | None:
    """The layer that a column is of, or None if it is a sum over layers."""
    found = re.search(rf"{_LAYER}$", column)
    return int(found[1]) if found else None


def _of_layer(name: str, layer: int | None) -> str:
    return name if layer is None else f"{name}/layer_{layer}"
