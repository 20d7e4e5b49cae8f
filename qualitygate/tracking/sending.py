"""How anything is sent to MLflow: a parcel says what, and goes out as one run, on the logged model of each checkpoint it is about.

Every step can be done twice without harm, so a push that broke half way goes on in the run it began. The weights of a checkpoint stay
where they are: its model is what MLflow hangs all of its gates on.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from qualitygate import names
from qualitygate.errors import public
from qualitygate.mlflow_client import as_tracking_error, connect, experiment_id, tracking_uri

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from qualitygate.records import Provenance
    from qualitygate.records.metrics import MetricsReport, RealInfo

EXPERIMENT = "qualitygate"
MODEL_TYPE = "qualitygate.generator"
_DIGEST = 36  # characters of a dataset's digest that MLflow keeps


@dataclass(frozen=True)
class Logged:
    """Where something went. ``uri`` is without passwords."""

    run_id: str
    model_id: str
    experiment_id: str
    uri: str


@dataclass(frozen=True)
class TrackedCheckpoint:
    """A checkpoint and what is said of it. Its model is found by its SHA-256, where it is not known."""

    checkpoint: str
    sha256: str
    family: str
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)  # finite values
    step: int = 0  # of the metrics
    model_id: str | None = None

    @property
    def name(self) -> str:
        """The checkpoint's file name without folder and ending."""
        return PurePath(self.checkpoint).stem or "generator"


@dataclass(frozen=True)
class Parcel:
    """What is sent as one run."""

    what: object  # the folder or page, for errors
    identity: tuple[str, str]  # name and value of the tag by which its run is found again
    run_name: str
    checkpoints: Sequence[TrackedCheckpoint] = ()
    params: Mapping[str, object] = field(default_factory=dict)  # a value beyond MLflow's limit is left to the files
    tags: Mapping[str, str] = field(default_factory=dict)
    run_tag: str | None = None  # name of the tag of run and models that holds the run's id
    note: str | Callable[[MlflowClient], str] = ""  # in Markdown; a function where it depends on what MLflow holds already
    real: RealInfo | None = None  # what the metrics were measured against
    files: Sequence[Path] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)  # by their name there
    documents: Mapping[str, Any] = field(default_factory=dict)  # JSON by name
    table: tuple[str, pd.DataFrame] | None = None  # by the name under which MLflow lays it beside that of another run
    images: Mapping[str, Path] = field(default_factory=dict)  # PNG files by the key under which MLflow lays runs side by side
    again: bool = False  # sent although it was sent before
    remedy: str | None = None  # when it cannot be sent


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that MLflow can hold: it would store an infinite one as 1.8e308."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def software_tags(made: Provenance | MetricsReport) -> dict[str, str]:
    """By which software, and on what, numbers were made."""
    return {
        "qualitygate.version": made.package_version,
        "qualitygate.torch_version": made.torch_version,
        "qualitygate.device": made.device,
        "qualitygate.precision": made.precision,
    }


def send(parcel: Parcel, uri: str | None = None, experiment: str = EXPERIMENT) -> Logged:
    """Send a parcel to the MLflow of `tracking_uri`, into an experiment that is created if it is new; one that was sent before is not sent
    again. A run that cannot be sent whole is left as FAILED, to be resumed."""
    uri = tracking_uri(uri)
    what, remedy = f"MLflow at {public(uri)} did not take all of {parcel.what}", parcel.remedy
    remedy = remedy or f"nothing is lost; when the cause is gone: `qualitygate sync {parcel.what}`"
    with as_tracking_error(what, "a server that takes it", remedy), connect(uri) as client:
        home = experiment_id(client, uri, experiment)
        models = [one.model_id or _model(client, home, one) for one in parcel.checkpoints]
        tag, value = parcel.identity
        runs = client.search_runs([home], f"tags.`{tag}` = '{value}'", max_results=1)
        # a search leaves out the links to models
        run = client.get_run(runs[0].info.run_id) if runs else client.create_run(home, tags={tag: value}, run_name=parcel.run_name)
        run_id = run.info.run_id
        if parcel.again or run.info.status != "FINISHED":
            # FINISHED or FAILED is about the sending alone; the gate's verdict is a tag
            client.update_run(run_id, status="RUNNING")
            try:
                _send(client, run, models, parcel)
            except BaseException:
                with suppress(Exception):  # the server may be gone; what went wrong first is what counts
                    client.set_terminated(run_id, status="FAILED")
                raise
            client.set_terminated(run_id, status="FINISHED")
    return Logged(run_id, models[-1] if models else "", home, public(uri))


def _send(client: MlflowClient, run: Run, models: Sequence[str], parcel: Parcel) -> None:
    from mlflow.entities import LoggedModelOutput, Param, RunTag
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    run_id, about = run.info.run_id, list(zip(models, parcel.checkpoints, strict=True))
    own = {} if parcel.run_tag is None else {parcel.run_tag: run_id}
    note = parcel.note if isinstance(parcel.note, str) else parcel.note(client)
    params = [Param(key, str(value)) for key, value in parcel.params.items() if len(str(value)) <= MAX_PARAM_VAL_LENGTH]
    tags = [RunTag(key, value) for key, value in {**parcel.tags, **own, names.TAG_NOTE: note}.items()]
    client.log_batch(run_id, params=params, tags=tags)
    linked = {one.model_id for one in run.outputs.model_outputs} if run.outputs else set()  # a second link to a model is refused
    steps = {model: one.step for model, one in about if model not in linked}
    if steps:
        client.log_outputs(run_id, [LoggedModelOutput(model, step) for model, step in steps.items()])
    dataset = None if parcel.real is None else _send_real_set(client, run, parcel.real)
    for model, one in about:
        _send_metrics(client, run, model, one, dataset)
    for path in parcel.files:
        client.log_artifact(run_id, str(path))
    for name, path in parcel.folders.items():
        client.log_artifacts(run_id, str(path), name)
    for name, document in parcel.documents.items():
        client.log_dict(run_id, document, name)
    if parcel.table is not None:
        _send_table(client, run_id, *parcel.table)
    _send_images(client, run_id, parcel.images)
    for model, one in about:
        if shown := {**one.tags, **own}:
            client.set_logged_model_tags(model, shown)


def _send_real_set(client: MlflowClient, run: Run, real: RealInfo) -> tuple[str, str]:
    """The real set as the run's input; returns the name and digest by which metrics point to it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    source = json.dumps({"name": real.name, "sha256": real.digest})
    profile = json.dumps({"images": real.samples, "preparation": real.preparation})
    dataset = Dataset(real.name, real.digest[:_DIGEST], "local", source, profile=profile)
    if not run.inputs or not run.inputs.dataset_inputs:
        client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "real")])])
    return dataset.name, dataset.digest


def _send_metrics(client: MlflowClient, run: Run, model_id: str, about: TrackedCheckpoint, dataset: tuple[str, str] | None) -> None:
    """Metrics of the run and of a model. The run's start is their time, so that sending one twice makes it no other metric."""
    from mlflow.entities import Metric

    known = client.get_logged_model(model_id).metrics or []
    sent = {metric.key for metric in known if metric.run_id == run.info.run_id}
    time, (name, digest) = run.info.start_time, dataset or (None, None)
    missing = [
        Metric(key, value, time, about.step, model_id=model_id, dataset_name=name, dataset_digest=digest)
        for key, value in about.metrics.items()
        if key not in sent
    ]
    client.log_batch(run.info.run_id, metrics=missing)


def _send_table(client: MlflowClient, run_id: str, name: str, table: pd.DataFrame) -> None:
    """A table, as `MlflowClient.log_table` writes it. That one appends to what is there: sent twice, every row would be too."""
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        table.to_json(path, orient="split", index=False)
        client.log_artifact(run_id, str(path))
    client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([{"path": name, "type": "table"}]))


def _send_images(client: MlflowClient, run_id: str, images: Mapping[str, Path]) -> None:
    """Pictures, each once, for every sending gets a name of its own."""
    import numpy as np
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES
    from PIL import Image

    sent = [file.path for file in client.list_artifacts(run_id, "images")] if images else []
    for key, path in images.items():
        start = f"images/{key.replace('/', '~')}+step+0+"
        if not any(file.startswith(start) and file.endswith("+compressed.webp") for file in sent):  # the last file of an image
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))  # uint8: MLflow rescales floats, each image by its own range
            client.log_image(run_id, pixels, key=key, step=0, synchronous=True)
    if images:
        client.set_tag(run_id, MLFLOW_LOGGED_IMAGES, "True")


def _model(client: MlflowClient, home: str, about: TrackedCheckpoint) -> str:
    """Id of the checkpoint's model in the experiment, found by the checkpoint's SHA-256; created and made ready if it is new.

    Ready as by `mlflow.create_external_model`, which only works on the global tracking address: the registry wants the file.
    """
    from mlflow.entities import LoggedModelStatus
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.models.utils import get_external_mlflow_model_spec
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

    oldest_first = [{"field_name": "creation_time", "ascending": True}]
    query = f"tags.`{names.TAG_CHECKPOINT}` = '{about.sha256}'"
    found = client.search_logged_models([home], query, max_results=1, order_by=oldest_first)
    model = next(iter(found), None) or client.create_logged_model(
        home,
        name=re.sub(r"[/:.%\"']", "_", about.name),  # characters that MLflow refuses in a model's name
        model_type=MODEL_TYPE,
        params={"family": about.family, "sha256": about.sha256, "checkpoint": about.checkpoint},
        tags={**about.tags, names.TAG_CHECKPOINT: about.sha256, MLFLOW_MODEL_IS_EXTERNAL: "true"},
    )
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory() as folder:
            get_external_mlflow_model_spec(model).save(str(Path(folder) / MLMODEL_FILE_NAME))
            client.log_model_artifacts(model.model_id, folder)
        client.finalize_logged_model(model.model_id, "READY")
    return model.model_id
