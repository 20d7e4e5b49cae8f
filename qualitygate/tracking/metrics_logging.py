"""Send a folder of metrics to MLflow: one run, on the checkpoint's logged model, with the real set as the dataset it was held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate import names
from qualitygate.tracking.describe import CHECKPOINT, NOTE, POLICY_HASH, PROFILE_ID
from qualitygate.tracking.metrics_set import FIGURES, MetricsSet, read_metrics_set
from qualitygate.tracking.models import TrackedCheckpoint
from qualitygate.tracking.sending import EXPERIMENT, Logged, Parcel, link_model, send_images, send_metrics, send_once, send_table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

METRICS_ID = "qualitygate.metrics_id"
CONTEXT = "real"
"""What the dataset is to the run."""
_DIGEST = 36  # characters of a dataset's digest that MLflow keeps


def log_metrics_set(folder: str | Path, uri: str | None = None, experiment: str = EXPERIMENT) -> Logged:
    """Send a folder of metrics; one that was sent before is not sent again.

    Args:
        folder: written by `qualitygate metrics`; it is only read.
        uri: where MLflow is; default as in `tracking_uri`.
        experiment: name of the experiment, created if it is new.

    Raises:
        InputError: the folder holds no metrics.
        TrackingError: MLflow cannot be reached, or refused something. A run that was begun is left as FAILED, to be resumed.
    """
    found = read_metrics_set(folder)
    report = found.report
    checkpoint = TrackedCheckpoint(report.checkpoint, report.checkpoint_sha256, report.family, {})
    identity, name = (METRICS_ID, found.metrics_id), f"{found.name}, metrics, seed {report.seed}"
    parcel = Parcel(found.folder, checkpoint, identity, name)
    return send_once(parcel, lambda client, run, model_id: _send(client, run, model_id, found), uri, experiment)


def _send(client: MlflowClient, run: Run, model_id: str, found: MetricsSet) -> None:
    from mlflow.entities import Param, RunTag

    run_id = run.info.run_id
    client.log_batch(
        run_id,
        params=[Param(key, value) for key, value in run_params(found).items()],
        tags=[RunTag(key, value) for key, value in run_tags(found).items()],
    )
    link_model(client, run, model_id)
    dataset = _send_real_set(client, run, found)
    send_metrics(client, run, model_id, found.metrics, dataset)
    for path in found.files:
        client.log_artifact(run_id, str(path))
    if (figures := found.folder / FIGURES).is_dir():
        client.log_artifacts(run_id, str(figures), FIGURES)
    send_table(client, run_id, found.table(), names.GROUPS_TABLE)
    send_images(client, run_id, found.figures)


def _send_real_set(client: MlflowClient, run: Run, found: MetricsSet) -> tuple[str, str] | None:
    """The real set as the run's input; returns the name and digest by which metrics point to it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    real = found.report.real
    if real is None:
        return None
    source = json.dumps({"name": real.name, "sha256": real.digest})
    profile = json.dumps({"images": real.samples, "preparation": real.preparation})
    dataset = Dataset(real.name, real.digest[:_DIGEST], "local", source, profile=profile)
    if not run.inputs or not run.inputs.dataset_inputs:
        client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, CONTEXT)])])
    return dataset.name, dataset.digest


def run_params(found: MetricsSet) -> dict[str, str]:
    """What the numbers depend on."""
    report = found.report
    params = {
        "family": report.family,
        "seed": report.seed,
        "samples": report.samples,
        "score": report.score,
        "group_share": f"{report.group_share:g}",
        "extractor": report.extractor,
        "distance": report.distance,
        "real": report.real.name if report.real else None,
    }
    return {f"metrics.{name}" if name != "family" else name: str(value) for name, value in params.items() if value is not None}


def run_tags(found: MetricsSet) -> dict[str, str]:
    """The tags of the run, the note among them."""
    report = found.report
    tags = {
        METRICS_ID: found.metrics_id,
        CHECKPOINT: report.checkpoint_sha256,
        "qualitygate.version": report.package_version,
        "qualitygate.torch_version": report.torch_version,
        "qualitygate.device": report.device,
        "qualitygate.precision": report.precision,
        NOTE: note(found),
    }
    given = {PROFILE_ID: report.profile_id, POLICY_HASH: report.policy_hash}
    return tags | {name: value for name, value in given.items() if value is not None}


def note(found: MetricsSet) -> str:
    """A few sentences in Markdown: what was measured, whether the papers' order holds, where to look."""
    report = found.report
    against = f" against {report.real.samples:,} images of {report.real.name}" if report.real else " without real images"
    lines = [f"{report.samples:,} samples of `{report.checkpoint}`{against}."]
    for one in report.order:
        word = "holds beyond chance" if one.clear else "holds within chance" if one.holds else "does not hold"
        lines.append(
            f"{one.metric}: lowest better than random better than highest {word} ({one.lowest:.4g}, {one.random:.4g}, {one.highest:.4g})."
        )
    lines += [f"Not measured: {left_out}." for left_out in report.left_out]
    return "\n\n".join([*lines, f"Look at `{names.GROUPS_TABLE}` and `{FIGURES}/`."])
