"""How anything is sent to MLflow: as one run, on the checkpoint's logged model, found again by an id tag.

Every step can be done twice without harm, so a push that broke half way goes on in the run it began.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate.errors import QualityGateError, TrackingError
from qualitygate.tracking.gated_set import read_image
from qualitygate.tracking.models import TrackedCheckpoint, checkpoint_model
from qualitygate.tracking.store import connect, experiment_id, public, tracking_uri

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "qualitygate"


@dataclass(frozen=True)
class Logged:
    """Where something went. ``uri`` is without passwords."""

    run_id: str
    model_id: str
    experiment_id: str
    uri: str


@dataclass(frozen=True)
class Parcel:
    """What is sent once.

    Attributes:
        folder: where it lies, and from where `qualitygate sync` sends it later.
        checkpoint: what it is about.
        identity: name and value of the tag by which its run is found again.
        run_name: for people.
    """

    folder: Path
    checkpoint: TrackedCheckpoint
    identity: tuple[str, str]
    run_name: str


def send_once(parcel: Parcel, send: Callable[[MlflowClient, Run, str], None], uri: str | None, experiment: str) -> Logged:
    """Send a parcel; one that was sent before is not sent again.

    Args:
        parcel: what is sent.
        send: writes it, given the client, the run and the id of the checkpoint's model.
        uri: where MLflow is; default as in `tracking_uri`.
        experiment: name of the experiment, created if it is new.

    Raises:
        TrackingError: MLflow cannot be reached, or refused something. A run that was begun is left as FAILED, to be resumed.
    """
    uri = tracking_uri(uri)
    with as_tracking_error(parcel.folder, uri), connect(uri) as client:
        home = experiment_id(client, uri, experiment)
        model_id = checkpoint_model(client, home, parcel.checkpoint)
        run = find_or_create_run(client, home, parcel.identity, parcel.run_name)
        if run.info.status != "FINISHED":
            with closing(client, run.info.run_id):
                send(client, run, model_id)
    return Logged(run.info.run_id, model_id, home, public(uri))


def link_model(client: MlflowClient, run: Run, model_id: str) -> None:
    """Say that the run is about this model."""
    from mlflow.entities import LoggedModelOutput

    if not run.outputs or not run.outputs.model_outputs:  # a second link to the same model is refused
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step=0)])


def send_metrics(
    client: MlflowClient, run: Run, model_id: str, metrics: Mapping[str, float], dataset: tuple[str, str] | None = None
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
    missing = [
        Metric(key, value, time, 0, model_id=model_id, dataset_name=name, dataset_digest=digest)
        for key, value in metrics.items()
        if key not in sent
    ]
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
        if not any(file.startswith(start) and file.endswith("+compressed.webp") for file in sent):  # the last file of an image
            client.log_image(run_id, read_image(path), key=key, step=0, synchronous=True)
    if images:
        client.set_tag(run_id, MLFLOW_LOGGED_IMAGES, "True")


def find_or_create_run(client: MlflowClient, experiment: str, identity: tuple[str, str], name: str) -> Run:
    """The run with this tag; one of this name if there is none yet."""
    tag, value = identity
    runs = client.search_runs([experiment], f"tags.`{tag}` = '{value}'", max_results=1)
    if runs:
        return client.get_run(runs[0].info.run_id)  # a search leaves out the links to models
    return client.create_run(experiment, tags={tag: value}, run_name=name)


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
def as_tracking_error(what: object, uri: str, remedy: str | None = None) -> Iterator[None]:
    """Whatever goes wrong with MLflow in the ``with`` block is a `TrackingError`.

    Args:
        what: is being sent: a folder, unless there is a remedy of its own.
        uri: of MLflow.
        remedy: what to do.
    """
    try:
        yield
    except QualityGateError:
        raise
    except Exception as error:  # artifact stores raise their own clients' exceptions
        raise TrackingError(
            f"MLflow at {public(uri)} did not take all of {what}",
            public(f"{type(error).__name__}: {error}"),
            "a server that takes it",
            remedy or f"nothing is lost; when the cause is gone: `qualitygate sync {what}`",
        ) from error
