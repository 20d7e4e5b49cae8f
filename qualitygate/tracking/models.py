"""One logged model per checkpoint: what MLflow hangs all of a checkpoint's gates on. The weights stay where they are."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate.tracking.describe import CHECKPOINT, model_tags
from qualitygate.tracking.gated_set import GatedSet, checkpoint_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

MODEL_TYPE = "qualitygate.generator"


def checkpoint_model(client: MlflowClient, experiment_id: str, gated: GatedSet) -> str:
    """Id of the model of a gated set's checkpoint."""
    provenance = gated.summary.provenance
    return model_of_checkpoint(client, experiment_id, provenance.checkpoint, provenance.family,
                               provenance.checkpoint_sha256, model_tags(gated))  # fmt: skip


def model_of_checkpoint(
    client: MlflowClient,
    experiment_id: str,
    checkpoint: str,
    family: str,
    sha256: str,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Id of a checkpoint's model in the experiment, found by the checkpoint's SHA-256; created and made ready if it is new."""
    from mlflow.entities import LoggedModelStatus

    model = _find(client, experiment_id, sha256) or _create(
        client, experiment_id, checkpoint, family, sha256, {CHECKPOINT: sha256, **(tags or {})}
    )
    if model.status != LoggedModelStatus.READY:
        _make_ready(client, model)
    return model.model_id


def _find(client: MlflowClient, experiment_id: str, sha256: str) -> LoggedModel | None:
    oldest_first = [{"field_name": "creation_time", "ascending": True}]
    found = client.search_logged_models(
        [experiment_id], f"tags.`{CHECKPOINT}` = '{sha256}'", max_results=1, order_by=oldest_first
    )
    return found[0] if found else None


def _create(
    client: MlflowClient, experiment_id: str, checkpoint: str, family: str, sha256: str, tags: Mapping[str, str]
) -> LoggedModel:
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

    return client.create_logged_model(
        experiment_id,
        name=re.sub(r"[/:.%\"']", "_", checkpoint_name(checkpoint)),  # characters that MLflow refuses in a model's name
        model_type=MODEL_TYPE,
        params={"family": family, "sha256": sha256, "checkpoint": checkpoint},
        tags={**tags, MLFLOW_MODEL_IS_EXTERNAL: "true"},
    )


def _make_ready(client: MlflowClient, model: LoggedModel) -> None:
    """What `mlflow.create_external_model` does, which only works on the global tracking address: the registry wants the file."""
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.models.utils import get_external_mlflow_model_spec

    with tempfile.TemporaryDirectory() as folder:
        get_external_mlflow_model_spec(model).save(str(Path(folder) / MLMODEL_FILE_NAME))
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")
