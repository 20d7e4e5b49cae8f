"""One logged model per checkpoint: what MLflow hangs all of a checkpoint's gates on. The weights stay where they are."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from qualitygate.tracking.describe import CHECKPOINT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

MODEL_TYPE = "qualitygate.generator"


@dataclass(frozen=True)
class TrackedCheckpoint:
    """What MLflow is told of a checkpoint. ``tags`` are those that its model is created with."""

    checkpoint: str
    sha256: str
    family: str
    tags: Mapping[str, str]

    @property
    def name(self) -> str:
        """The checkpoint's file name without folder and ending."""
        return PurePath(self.checkpoint).stem or "generator"


def checkpoint_model(client: MlflowClient, experiment_id: str, checkpoint: TrackedCheckpoint) -> str:
    """Id of the checkpoint's model in the experiment, found by the checkpoint's SHA-256; created and made ready if it is new."""
    from mlflow.entities import LoggedModelStatus

    model = _find(client, experiment_id, checkpoint.sha256) or _create(client, experiment_id, checkpoint)
    if model.status != LoggedModelStatus.READY:
        _make_ready(client, model)
    return model.model_id


def _find(client: MlflowClient, experiment_id: str, sha256: str) -> LoggedModel | None:
    oldest_first = [{"field_name": "creation_time", "ascending": True}]
    found = client.search_logged_models([experiment_id], f"tags.`{CHECKPOINT}` = '{sha256}'", max_results=1, order_by=oldest_first)
    return found[0] if found else None


def _create(client: MlflowClient, experiment_id: str, checkpoint: TrackedCheckpoint) -> LoggedModel:
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

    return client.create_logged_model(
        experiment_id,
        name=re.sub(r"[/:.%\"']", "_", checkpoint.name),  # characters that MLflow refuses in a model's name
        model_type=MODEL_TYPE,
        params={"family": checkpoint.family, "sha256": checkpoint.sha256, "checkpoint": checkpoint.checkpoint},
        tags={**checkpoint.tags, CHECKPOINT: checkpoint.sha256, MLFLOW_MODEL_IS_EXTERNAL: "true"},
    )


def _make_ready(client: MlflowClient, model: LoggedModel) -> None:
    """What `mlflow.create_external_model` does, which only works on the global tracking address: the registry wants the file."""
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.models.utils import get_external_mlflow_model_spec

    with tempfile.TemporaryDirectory() as folder:
        get_external_mlflow_model_spec(model).save(str(Path(folder) / MLMODEL_FILE_NAME))
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")
