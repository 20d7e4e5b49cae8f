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

CLA_PASSES = "cla_passes"  # early passes that screening spent on the sample
RISK = "risk"

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
UNIT_JOINED = "joined_rank"  # mean over the scores of the rank in the layer, 1 = most suspected

# metrics of a gated set, in summary.json and in MLflow
ASKED = "samples"
ACCEPTED_SHARE = "accepted_share"
CORRECTED_SHARE = "corrected_share"
REJECTED_SHARE = "rejected_share"
BORDERLINE_SHARE = "borderline_share"
YIELD = "yield"
SECONDS = "seconds"
IMAGES_PER_SECOND = "images_per_second"

# metrics of a set of images, or of a group of it
FID = "fid"
FID_INFINITY = "fid_infinity"
KID = "kid"
PRECISION = "precision"
RECALL = "recall"
DENSITY = "density"
COVERAGE = "coverage"
REALISM = "realism"
RARITY = "rarity"  # of the samples in a ball of a real image; the others have none
RARE_SHARE = "rare_share"  # samples in balls of the sparsest tenth of the real images alone
COPIES = "copies"  # share of samples that are copies of a real image, or nearly
INCEPTION_SCORE = "inception_score"
PPL = "ppl"
PPL_Z_END = "ppl_z_end"
PPL_Z_FULL = "ppl_z_full"
PPL_W_END = "ppl_w_end"
PPL_W_FULL = "ppl_w_full"
DISCRIMINATOR = "discriminator"

# groups of a set of images
ALL = "all"
LOWEST = "lowest"
HIGHEST = "highest"
HIGHEST_CORRECTED = "highest_corrected"
ACCEPTED = "accepted"
TO_CORRECT = "corrected_before"
CORRECTED = "corrected"
REJECTED = "rejected"
KEPT = "kept"
RANDOM = "random"

# places of a folder of metrics
GROUPS_TABLE = "metric_groups.json"
METRIC_FIGURES = ("metrics/precision_recall", "metrics/groups", "metrics/discriminator")

# metrics of a snapshot of a training run, in MLflow at its step; most of them by layer
CLA_MEAN = "dynamics/cla_mean"  # sample scores of the fixed latents
CLA_Q90 = "dynamics/cla_q0.9"
CLA_UNIT_Q99 = "dynamics/cla_unit_q0.99"  # the unit at the 99th percentile of its layer
CLA_UNIT_MAX = "dynamics/cla_unit_max"
ACTIVATION_SCALE = "dynamics/activation_scale"  # mean magnitude: what CLA grows with when nothing else changes
ACTIVATION_RATE = "dynamics/activation_rate"
LOW_RATE_SHARE = "dynamics/low_rate_share"
LOW_RATE_BORN = "dynamics/low_rate_born"  # share of neurons that became low-rate since the snapshot before
LOW_RATE_GONE = "dynamics/low_rate_gone"
AGAINST_SHARE = "dynamics/units_against_realism"  # units with a negative contribution to the discriminator's value
AGAINST_CLA_RANK = "dynamics/against_realism_cla_rank_correlation"  # of −contribution and CLA over units
AGAINST_RATE_CHANGE = "dynamics/rate_change_of_units_against"  # of activation rate, since the snapshot before that named them
FOR_RATE_CHANGE = "dynamics/rate_change_of_units_for"
# further metrics of a production set
COST_ACCEPTED = "cost/seconds_per_accepted"
COST_FILTERED = "cost/seconds_per_accepted_filtered"
COST_UNGATED = "cost/seconds_per_image_ungated"
COLLAPSE = "kept_share"

# metrics of a check of a checkpoint
LOW_RATE_NEURONS = "low_rate_share"  # at R: share of the neurons of the calibrated layers
DEAD_UNITS = "dead_units"  # share of the units whose neurons never fired in the calibration
WORST_UNIT_CLA = "worst_unit_cla"  # mean CLA of the worst units of a layer
PRECISION_TO_BASELINE = "precision_to_baseline"  # as against real images, the baseline's own images in their place
RECALL_TO_BASELINE = "recall_to_baseline"
COVERAGE_TO_BASELINE = "coverage_to_baseline"
REALISM_TO_BASELINE = "realism_to_baseline"

# metrics of a study of units
CLASSIFIER_ACCURACY = "classifier_validation_accuracy"

# places in MLflow
RANKING_TABLE = "unit_ranking.json"
SHEET_KEYS = ("gallery/best", "gallery/worst", "gallery/corrected", "gallery/rejected", "gallery/borderline")

# tags of runs, logged models and versions in MLflow
TAG_GATE = "qualitygate.gate_id"  # SHA-256 of summary.json, by which the run of a gated set is found again
TAG_CHECK = "qualitygate.check_id"  # of check.json
TAG_METRICS = "qualitygate.metrics_id"  # of metrics.json
TAG_UNITS = "qualitygate.units_id"  # of comparison.json
TAG_DYNAMICS = "qualitygate.dynamics_id"  # of the settings and the snapshots
TAG_COMPARISON = "qualitygate.comparison_id"  # of the names of what was compared
TAG_COMPARED = "qualitygate.compared"
TAG_CHECKPOINT = "qualitygate.checkpoint_sha256"
TAG_VERDICT = "qualitygate.verdict"  # of the last gate
TAG_CHECK_VERDICT = "qualitygate.check_verdict"
TAG_CHECK_RUN = "qualitygate.check_run"  # the run with the check's record
TAG_POLICY = "qualitygate.policy_hash"
TAG_PROFILE = "qualitygate.profile_id"
TAG_SUITE = "qualitygate.suite_hash"
TAG_NOT_FINITE = "qualitygate.metrics_not_finite"  # names of metrics that are left out
TAG_CLAIM = "qualitygate.claim"  # of a registered model that holds an alias while a check moves it
TAG_CLAIMED_BY = "qualitygate.claimed_by"  # that check's run
TAG_NOTE = "mlflow.note.content"


def rate(value: float) -> str:
    """A rate as it stands in names: ``0.1``."""
    return f"{value:g}"


def low_rate(at: float, layer: int | None = None) -> str:
    """Active low-rate neurons at R = ``at``: of one layer, or summed over the detection layers."""
    return of_layer(f"low_rate_{rate(at)}", layer)


def never_seen(layer: int | None = None) -> str:
    """Active neurons that never fired in the estimate of the rates: of one layer, or summed over the detection layers."""
    return of_layer(NEVER_SEEN, layer)


def cla(layer: int) -> str:
    """Sample score of the curvature of local activation at one layer."""
    return of_layer("cla", layer)


def cla_low(layer: int) -> str:
    """Lower end of the interval of a screened CLA; the score itself where it is exact."""
    return of_layer("cla_low", layer)


def cla_high(layer: int) -> str:
    """Upper end of the interval of a screened CLA; the score itself where it is exact."""
    return of_layer("cla_high", layer)


def cla_estimate(axes: int, points: int, layer: int) -> str:
    """Column of the calibration: CLA over so many axes, with so many grid steps on each side."""
    return of_layer(f"cla_{axes}x{points}", layer)


def activation_moments(layer: int) -> tuple[str, ...]:
    """Over a layer's neurons: the mean of the positive activations, the mean square, and the share that is active."""
    return tuple(of_layer(name, layer) for name in ("activation_mean", "activation_square", "active_share"))


def trial(method: str, strength: float, column: str) -> str:
    """What a correction at ``strength`` was judged on: ``sequential_correction_0.4/low_rate_0.1/layer_3``; ``ablation_0.2/…`` where it is
    sequential ablation."""
    return f"{'ablation' if method == 'sequential_ablation' else method}_{rate(strength)}/{column}"


def tried(method: str, strength: float) -> str:
    """Whether a correction at ``strength`` was tried on the sample: ``ablation_0.2/tried``."""
    return trial(method, strength, "tried")


def is_tried(column: str) -> bool:
    """Whether a column says that a correction was tried: 0 where it was not, never empty."""
    return column.endswith("/tried")


def is_trial(column: str) -> bool:
    """Whether a column is the outcome of a correction: its first part names a method and a strength, the rest what was judged."""
    head, _, judged = column.partition("/")
    return number(head.rpartition("_")[2]) is not None and bool(judged) and not judged.startswith("layer_")


def number(text: str) -> float | None:
    """A number as it stands in names, or None if it is none, or not written as `rate` writes it."""
    value = float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else None
    return value if value is not None and rate(value) == text else None


def quantile(column: str, q: float) -> str:
    """Summary metric: a quantile of a score over a set."""
    return f"{column}/q{q:g}"


def of_group(metric: str, group: str) -> str:
    """A metric as it is logged: ``fid`` of the whole set, ``fid/lowest`` of a group."""
    return metric if group == ALL else f"{metric}/{group}"


def interval(metric: str) -> tuple[str, str]:
    """Ends of the interval of a metric of the whole set: ``fid_low``, ``fid_high``."""
    return f"{metric}_low", f"{metric}_high"


def spread(metric: str) -> str:
    """Standard deviation of a metric over random groups."""
    return f"{of_group(metric, RANDOM)}/spread"


def truncated(psi: float) -> str:
    """The group of samples truncated at ``psi``: ``psi_0.5``."""
    return f"psi_{rate(psi)}"


def drift(score: str) -> tuple[str, str]:
    """Distance of scores from the calibration's, between their distribution functions: of a shard, and ``drift_run/…`` of all so far."""
    return f"drift/{score}", f"drift_run/{score}"


def time_share(part: str) -> str:
    """Share of the workers' time that a part of the work took: ``early``, ``late``; beside them, of all threads together, ``encode`` and
    ``write``; and ``wait``, in which these two held generation up."""
    return f"time_share/{part}"


def low_rate_share(at: float) -> str:
    """Share of a checkpoint's neurons with an activation rate of at most ``at``: ``low_rate_share_0.1``."""
    return f"{LOW_RATE_NEURONS}_{rate(at)}"


def low_rate_share_at(metric: str) -> float | None:
    """R of a share of low-rate neurons, or None if it is another metric."""
    stem, _, at = metric.rpartition("_")
    return number(at) if stem == LOW_RATE_NEURONS else None


def is_worst_unit_cla(metric: str) -> bool:
    """Whether this is the CLA of the worst units: of a layer, or of the family's first curvature layer."""
    return split_layer(metric)[0] == WORST_UNIT_CLA


def unit_key(layer: int, unit: int) -> str:
    """A unit as one word, by which tables of two checkpoints are joined: ``layer2/unit17``."""
    return f"layer{layer}/unit{unit}"


def given_unit_score(source: str) -> str:
    """Column of a unit score that was given beside the profile's own: ``units/defective_score``."""
    return f"units/{source}"


def split_layer(column: str) -> tuple[str, int | None]:
    """A column without its layer, and the layer; None where it is of no single one."""
    stem, _, digits = column.rpartition("/layer_")
    if stem and digits.isdecimal() and str(int(digits)) == digits:
        return stem, int(digits)
    return column, None


def of_set(metric: str) -> str:
    """A set metric of a snapshot: ``dynamics/fid``."""
    return f"dynamics/{metric}"


def of_layer(name: str, layer: int | None) -> str:
    """A column or metric of one layer, ``dynamics/cla_mean/layer_3``; itself where it is of no single one."""
    return name if layer is None else f"{name}/layer_{layer}"
