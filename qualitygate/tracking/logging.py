"""Send a gated set to MLflow: one run per gate, one logged model per checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate import names
from qualitygate.tracking.champion import find_champion
from qualitygate.tracking.describe import GATE_ID, model_tags, run_params, run_tags
from qualitygate.tracking.gated_set import GatedSet, read_gated_set
from qualitygate.tracking.models import TrackedCheckpoint
from qualitygate.tracking.sending import EXPERIMENT, Logged, Parcel, link_model, send_images, send_metrics, send_once, send_table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def log_gated_set(folder: str | Path, uri: str | None = None, experiment: str = EXPERIMENT) -> Logged:
    """Send a gated set; one that was sent before is not sent again.

    Args:
        folder: written by the gate; it is only read.
        uri: where MLflow is; default as in `tracking_uri`.
        experiment: name of the experiment, created if it is new.

    Raises:
        InputError: the folder holds no gated set.
        TrackingError: MLflow cannot be reached, or refused something. A run that was begun is left as FAILED, to be resumed.
    """
    gated = read_gated_set(folder)
    origin = gated.summary.provenance
    checkpoint = TrackedCheckpoint(origin.checkpoint, origin.checkpoint_sha256, origin.family, model_tags(gated))
    parcel = Parcel(gated.folder, checkpoint, (GATE_ID, gated.gate_id), f"{gated.name}, seed {origin.seed}")
    return send_once(parcel, lambda client, run, model_id: _send(client, run, model_id, gated), uri, experiment)


def _send(client: MlflowClient, run: Run, model_id: str, gated: GatedSet) -> None:
    run_id = run.info.run_id
    _send_values(client, run_id, gated)
    link_model(client, run, model_id)
    send_metrics(client, run, model_id, gated.metrics)
    for path in gated.files:
        client.log_artifact(run_id, str(path))
    for path in gated.folders:
        client.log_artifacts(run_id, str(path), path.name)
    if (ranking := gated.ranking()) is not None:
        send_table(client, run_id, ranking, names.RANKING_TABLE)
    send_images(client, run_id, gated.sheets)
    client.set_logged_model_tags(model_id, model_tags(gated))


def _send_values(client: MlflowClient, run_id: str, gated: GatedSet) -> None:
    """Parameters and tags. A parameter beyond MLflow's limit is left to ``policy.yaml``, which is sent whole."""
    from mlflow.entities import Param, RunTag
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    provenance = gated.summary.provenance
    against = find_champion(client, provenance.family, provenance.checkpoint_sha256)
    params = [Param(key, value) for key, value in run_params(gated).items() if len(value) <= MAX_PARAM_VAL_LENGTH]
    tags = [RunTag(key, value) for key, value in run_tags(gated, against).items()]
    client.log_batch(run_id, params=params, tags=tags)
