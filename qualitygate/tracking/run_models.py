"""The logged models of an MLflow run, as files: what a training run that logs its snapshots leaves behind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate import storage
from qualitygate.errors import InputError, QualityGateError, TrackingError
from qualitygate.tracking.store import connect, public, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

SUFFIXES = (".safetensors", ".pt", ".pth", ".pkl", ".bin", ".ckpt", ".tar")
_RUN = re.compile(r"runs:/+(\w+)/?", re.IGNORECASE)


@dataclass(frozen=True)
class RunModel:
    """A logged model of a run.

    Attributes:
        model_id: MLflow's.
        step: at which the run logged it.
        source: the file with its weights; the model's address where there is not exactly one, which no loader reads.
    """

    model_id: str
    step: int
    source: str


def run_of(source: str) -> str | None:
    """The run's id, if the source is a run as a whole: ``runs:/…`` without a path."""
    found = _RUN.fullmatch(source)
    return found and found[1]


def fetch_models(run_id: str, folder: Path, uri: str | None = None) -> list[RunModel]:
    """Download the weights of every logged model of a run, those that are not there yet.

    Raises:
        InputError: there is no such run, or it has no models.
        TrackingError: MLflow cannot be reached.
        StorageError: the files cannot be kept.
    """
    from mlflow.exceptions import MlflowException

    uri = tracking_uri(uri)
    with connect(uri) as client:
        try:
            outputs = client.get_run(run_id).outputs
            steps = {one.model_id: one.step for one in (outputs.model_outputs if outputs else [])}
            if not steps:
                raise InputError(
                    f"Run {run_id} has no logged models",
                    "none",
                    "a run that logged its snapshots",
                    "name the files, or runs:/RUN/path for an artifact",
                )
            return [RunModel(model_id, step, _fetched(client, model_id, folder / model_id, uri)) for model_id, step in steps.items()]
        except QualityGateError:
            raise
        except MlflowException as error:
            raise InputError(
                f"MLflow at {public(uri)} does not give the models of run {run_id}",
                public(str(error)),
                "the id of a run there",
                "set MLFLOW_TRACKING_URI if it is elsewhere",
            ) from error
        except Exception as error:  # artifact stores raise their own clients' exceptions
            raise TrackingError(
                f"MLflow at {public(uri)} broke off",
                public(f"{type(error).__name__}: {error}"),
                "a server that answers",
                "try again; what has come is kept",
            ) from error


def _fetched(client: MlflowClient, model_id: str, folder: Path, uri: str) -> str:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if not folder.exists():
        repository = get_artifact_repository(client.get_logged_model(model_id).artifact_location, tracking_uri=uri)
        with storage.new_folder(folder) as partial:
            repository.download_artifacts("", str(partial))
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES]
    return str(files[0]) if len(files) == 1 else f"models:/{model_id}"
