"""Send a gated set to MLflow: one run per gate, one logged model per checkpoint.

Every step can be done twice without harm, so a push that broke half way goes on in the run it began.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate import names
from qualitygate.errors import QualityGateError, TrackingError
from qualitygate.tracking.champion import find_champion
from qualitygate.tracking.describe import GATE_ID, model_tags, run_params, run_tags
from qualitygate.tracking.gated_set import GatedSet, read_gated_set, read_image
from qualitygate.tracking.models import TrackedCheckpoint, checkpoint_model
from qualitygate.tracking.store import connect, experiment_id, public, tracking_uri

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "qualitygate"


@dataclass(frozen=True)
class Logged:
    """Where a gated set went. ``uri`` is without passwords."""

    run_id: str
    model_id: str
    experiment_id: str
    uri: str


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
    uri = tracking_uri(uri)
    with as_tracking_error(gated.folder, uri), connect(uri) as client:
        home = experiment_id(client, uri, experiment)
        provenance = gated.summary.provenance
        checkpoint = TrackedCheckpoint(
            provenance.checkpoint, provenance.checkpoint_sha256, provenance.family, model_tags(gated)
        )
        model_id = checkpoint_model(client, home, checkpoint)
        run = find_run(client, home, GATE_ID, gated.gate_id) or client.create_run(
            home, tags={GATE_ID: gated.gate_id}, run_name=f"{gated.name}, seed {gated.summary.provenance.seed}"
        )
        if run.info.status != "FINISHED":
            with closing(client, run.info.run_id):
                _send(client, run, model_id, gated)
    return Logged(run.info.run_id, model_id, home, public(uri))


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


def link_model(client: MlflowClient, run: Run, model_id: str) -> None:
    """Say that the run is about this model."""
    from mlflow.entities import LoggedModelOutput

    if not run.outputs or not run.outputs.model_outputs:  # a second link to the same model is refused
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step=0)])


def send_metrics(
    client: MlflowClient,
    run: Run,
    model_id: str,
    metrics: Mapping[str, float],
    dataset: tuple[str, str] | None = None,
) -> None:
    """Metrics of the run and of its model. The run's start is their time, so that sending one twice makes it no other metric.

    Args:
        client: of MLflow.
        run: the run.
        model_id: the checkpoint's model.
        metrics: finite values by name.
        dataset: name and digest of the logged dataset that they were measured on.
    """
    from mlflow.entities import Metric

    known = client.get_logged_model(model_id).metrics or []
    sent = {metric.key for metric in known if metric.run_id == run.info.run_id}
    time = run.info.start_time
    name, digest = dataset or (None, None)
    missing = [Metric(key, value, time, 0, model_id=model_id, dataset_name=name, dataset_digest=digest)
               for key, value in metrics.items() if key not in sent]  # fmt: skip
    client.log_batch(run.info.run_id, metrics=missing)


def send_table(client: MlflowClient, run_id: str, table: pd.DataFrame, name: str) -> None:
    """A table, as `MlflowClient.log_table` writes it. That one appends to what is there: sent twice, every row would be too."""
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        table.to_json(path, orient="split", index=False)
        client.log_artifact(run_id, str(path))
    client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([{"path": name, "type": "table"}]))


def send_images(client: MlflowClient, run_id: str, images: Mapping[str, Path]) -> None:
    """Pictures, under the keys by which MLflow lays runs side by side; each once, for every sending gets a name of its own."""
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES

    sent = [file.path for file in client.list_artifacts(run_id, "images")]
    for key, path in images.items():
        start = f"images/{key.replace('/', '~')}+step+0+"
        if not any(
            file.startswith(start) and file.endswith("+compressed.webp") for file in sent
        ):  # the last file of an image
            client.log_image(run_id, read_image(path), key=key, step=0, synchronous=True)
    if images:
        client.set_tag(run_id, MLFLOW_LOGGED_IMAGES, "True")


def find_run(client: MlflowClient, experiment: str, tag: str, value: str) -> Run | None:
    """The run with this tag, if there is one."""
    runs = client.search_runs([experiment], f"tags.`{tag}` = '{value}'", max_results=1)
    return client.get_run(runs[0].info.run_id) if runs else None  # a search leaves out the links to models


@contextmanager
def closing(client: MlflowClient, run_id: str) -> Iterator[None]:
    """FINISHED or FAILED is about the sending alone; the gate's verdict is a tag."""
    client.update_run(run_id, status="RUNNING")
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the server may be gone; what went wrong first is what counts
            client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id, status="FINISHED")


@contextmanager
def as_tracking_error(folder: Path, uri: str) -> Iterator[None]:
    try:
        yield
    except QualityGateError:
        raise
    except Exception as error:  # artifact stores raise their own clients' exceptions
        raise TrackingError(f"MLflow at {public(uri)} did not take all of {folder}",
                            public(f"{type(error).__name__}: {error}"), "a server that takes it",
                            f"nothing is lost; when the cause is gone: `qualitygate sync {folder}`"
                            ) from error  # fmt: skip
