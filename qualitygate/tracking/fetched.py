"""What MLflow has, copied back to be read: gated sets, metrics, and the models that a training run logged; and the page that compares."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate import names, storage
from qualitygate.checkpoints.sources import SUFFIXES
from qualitygate.errors import InputError
from qualitygate.mlflow_client import artifacts, reading, tracking_uri
from qualitygate.records import canonical_hash
from qualitygate.tracking.gated_set import FILES, SUMMARY
from qualitygate.tracking.sending import Parcel
from qualitygate.tracking.studies import METRICS_FILES, METRICS_REPORT

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RUN = re.compile(r"runs:/+(\w+)/?", re.IGNORECASE)


@dataclass(frozen=True)
class RunModel:
    """A logged model of a run."""

    model_id: str
    step: int  # at which the run logged it
    source: str  # the file with its weights; the model's address where there is not exactly one, which no loader reads


def is_run_id(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def run_of(source: str) -> str | None:
    """The run's id, if the source is a run as a whole: ``runs:/…`` without a path."""
    found = _RUN.fullmatch(source)
    return found and found[1]


def fetch_gated_set(run_id: str, folder: Path, uri: str | None = None) -> Path:
    """Copy what a page shows of a gate's run into ``folder``."""
    there = _download(run_id, FILES, folder, uri)
    if not (folder / SUMMARY).is_file():
        found = f"files {', '.join(sorted(there)[:5]) or 'none'}"
        raise InputError(f"Run {run_id} is not that of a gate", found, "a run that `qualitygate gate` logged")
    return folder


def fetch_metrics(sha256: str, run_id: str, folder: Path, uri: str | None = None) -> Path | None:
    """Copy the newest metrics of a checkpoint, of the experiment of a gate's run, into ``folder``; None if there are none."""
    with reading(tracking_uri(uri)) as client:
        home = client.get_run(run_id).info.experiment_id
        query = f"tags.`{names.TAG_CHECKPOINT}` = '{sha256}' and tags.`{names.TAG_METRICS}` LIKE '%'"
        found = client.search_runs([home], query, max_results=1, order_by=["attributes.start_time DESC"])
    if not found:
        return None
    _download(found[0].info.run_id, METRICS_FILES, folder, uri)
    return folder if (folder / METRICS_REPORT).is_file() else None


def fetch_models(run_id: str, folder: Path, uri: str | None = None) -> list[RunModel]:
    """Download the weights of every logged model of a run, those that are not there yet."""
    uri = tracking_uri(uri)
    with reading(uri) as client:
        outputs = client.get_run(run_id).outputs
        steps = {one.model_id: one.step for one in (outputs.model_outputs if outputs else [])}
        if not steps:
            remedy = "name the files, or runs:/RUN/path for an artifact"
            raise InputError(f"Run {run_id} has no logged models", "none", "a run that logged its snapshots", remedy)
        return [RunModel(model_id, step, _weights(client, model_id, folder / model_id, uri)) for model_id, step in steps.items()]


def comparison_parcel(page: Path, runs: list[str], note: str) -> Parcel:
    """A page (HTML) that compares runs, as a run of its own; the same comparison again replaces it. ``runs`` are ids of runs, or other
    names of what was compared; the note says in Markdown what differs."""
    return Parcel(
        what=page,
        identity=(names.TAG_COMPARISON, canonical_hash(runs)),
        run_name=f"comparison of {len(runs)} gated sets",
        tags={names.TAG_COMPARED: ", ".join(runs)[:5000]},
        note=note[:5000],
        files=(page,),
        again=True,
        remedy="nothing is lost: the page stands; when the cause is gone, run `qualitygate compare` again",
    )


def _download(run_id: str, wanted: tuple[str, ...], folder: Path, uri: str | None) -> set[str]:
    """Copy those of the wanted files that a run has; the names of all that it has."""
    with artifacts(tracking_uri(uri), run_id=run_id) as found:
        there = set(found.files())
        for name in sorted(there & set(wanted)):
            found.download(name, folder)
    return there


def _weights(client: MlflowClient, model_id: str, folder: Path, uri: str) -> str:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if not folder.exists():
        repository = get_artifact_repository(client.get_logged_model(model_id).artifact_location, tracking_uri=uri)
        with storage.new_folder(folder) as partial:
            repository.download_artifacts("", str(partial))
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES]
    return str(files[0]) if len(files) == 1 else f"models:/{model_id}"
