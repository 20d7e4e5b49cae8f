"""A training run's snapshots in MLflow: one run for the analysis, one logged model for each snapshot, metrics at its step.

The names are the same for every training run, so two of them overlay. Sent twice, nothing is there twice.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate.records import canonical_hash
from qualitygate.records.dynamics import DynamicsRecord, SnapshotRecord
from qualitygate.tracking.describe import NOTE
from qualitygate.tracking.gated_set import read_image
from qualitygate.tracking.models import TrackedCheckpoint, checkpoint_model
from qualitygate.tracking.sending import EXPERIMENT, Logged, as_tracking_error, closing, find_or_create_run
from qualitygate.tracking.store import connect, experiment_id, public, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DYNAMICS_ID = "qualitygate.dynamics_id"
STEPS_A_KIMG = 1000
"""MLflow's steps are whole numbers: images for progress in kimg."""


def log_dynamics(record: DynamicsRecord, figures: str | Path | None = None, uri: str | None = None, experiment: str = EXPERIMENT) -> Logged:
    """Send what was measured of the snapshots of a training run.

    Args:
        record: what was measured.
        figures: folder of PNG files, sent as images and as artifacts.
        uri: where MLflow is; default as in `tracking_uri`.
        experiment: name of the experiment, created if it is new.

    Raises:
        TrackingError: MLflow cannot be reached, or refused something.
    """
    uri = tracking_uri(uri)
    remedy = "run it again when the cause is gone: nothing is scored or sent twice"
    with as_tracking_error("the dynamics", uri, remedy), connect(uri) as client:
        home = experiment_id(client, uri, experiment)
        run = _run(client, home, record)
        with closing(client, run.info.run_id):
            models = {one.at: _model(client, home, one) for one in record.snapshots if one.checkpoint_sha256 and one.metrics}
            _link(client, run, record, models)
            for one in record.snapshots:
                if one.at in models:
                    _send_metrics(client, run, models[one.at], one, step(record.unit, one.at))
            client.log_dict(run.info.run_id, record.model_dump(mode="json"), "dynamics.json")
            _send_figures(client, run.info.run_id, figures)
    last = list(models.values())[-1] if models else ""
    return Logged(run.info.run_id, last, home, public(uri))


def step(unit: str, at: float) -> int:
    """MLflow's step: images seen, or training steps."""
    return round(at * STEPS_A_KIMG) if unit == "kimg" else round(at)


def _run(client: MlflowClient, home: str, record: DynamicsRecord) -> Run:
    """The analysis's run: the one that these snapshots were sent to before under these settings, or a new one."""
    dynamics_id = canonical_hash([record.settings, [one.checkpoint_sha256 for one in record.snapshots]])
    run = find_or_create_run(client, home, (DYNAMICS_ID, dynamics_id), f"dynamics of {len(record.snapshots)} snapshots")
    client.set_tag(run.info.run_id, NOTE, _note(record))
    for name, value in record.settings.items():
        client.log_param(run.info.run_id, name, value)
    return run


def _model(client: MlflowClient, home: str, one: SnapshotRecord) -> str:
    """The logged model that the snapshot came from, or else the one of its checkpoint."""
    if one.model_id is not None:
        return one.model_id
    assert one.checkpoint_sha256 is not None
    return checkpoint_model(client, home, TrackedCheckpoint(one.checkpoint, one.checkpoint_sha256, one.family or "", {}))


def _link(client: MlflowClient, run: Run, record: DynamicsRecord, models: dict[float, str]) -> None:
    from mlflow.entities import LoggedModelOutput

    linked = {one.model_id for one in run.outputs.model_outputs} if run.outputs else set()
    links = {model_id: step(record.unit, at) for at, model_id in models.items() if model_id not in linked}
    if links:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, at) for model_id, at in links.items()])


def _send_metrics(client: MlflowClient, run: Run, model_id: str, one: SnapshotRecord, at: int) -> None:
    """The finite metrics, to the run and to the model; those that are there already are not sent again."""
    from mlflow.entities import Metric

    known = client.get_logged_model(model_id).metrics or []
    sent = {metric.key for metric in known if metric.run_id == run.info.run_id}
    time = run.info.start_time
    missing = [
        Metric(name, value, time, at, model_id=model_id) for name, value in one.metrics.items() if name not in sent and math.isfinite(value)
    ]
    client.log_batch(run.info.run_id, metrics=missing)


def _send_figures(client: MlflowClient, run_id: str, figures: str | Path | None) -> None:
    """The figures under the keys ``dynamics/NAME``, each once."""
    paths = [] if figures is None else sorted(Path(figures).glob("*.png"))
    sent = [file.path for file in client.list_artifacts(run_id, "images")]
    for path in paths:
        client.log_artifact(run_id, str(path), "figures")
        key = f"dynamics/{path.stem}"
        if not any(file.startswith(f"images/{key.replace('/', '~')}+") for file in sent):
            client.log_image(run_id, read_image(path), key=key, step=0, synchronous=True)


def _note(record: DynamicsRecord) -> str:
    lines = [f"{len(record.snapshots)} snapshots, {record.snapshots[0].at:g} to {record.snapshots[-1].at:g} {record.unit}."]
    lines += [f"- **alarm**: {one}" for one in record.alarms]
    lines += [f"- `{one.checkpoint}` is left out: {one.error}" for one in record.snapshots if one.error]
    return "\n".join(lines)[:5000]
