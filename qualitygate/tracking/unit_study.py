"""Send a study of units to MLflow: its ranking at the path that every run has it, so that two checkpoints compare row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.tracking.describe import CHECKPOINT, NOTE, PROFILE_ID
from qualitygate.tracking.gated_set import RANKING_ROWS
from qualitygate.tracking.models import TrackedCheckpoint, checkpoint_model
from qualitygate.tracking.sending import EXPERIMENT, Logged, as_tracking_error, closing, link_model, send_table
from qualitygate.tracking.store import connect, experiment_id, public, tracking_uri

if TYPE_CHECKING:
    import pandas as pd

UNITS, COMPARISON, SHEETS = "units.parquet", "comparison.json", "sheets"


def log_unit_study(folder: str | Path, uri: str | None = None, experiment: str = EXPERIMENT) -> Logged:
    """Send what `qualitygate units` wrote, as a run of its own beside the checkpoint's gates.

    Args:
        folder: it is only read.
        uri: where MLflow is; default as in `tracking_uri`.
        experiment: name of the experiment, created if it is new.

    Raises:
        InputError: the folder holds no such study.
        TrackingError: MLflow cannot be reached, or refused something.
    """
    folder = Path(folder)
    if not (folder / COMPARISON).is_file():
        raise InputError(f"{folder} is not a study of units", f"no {COMPARISON} in it", "a folder written by `qualitygate units`")
    study = json.loads((folder / COMPARISON).read_text(encoding="utf8"))
    uri = tracking_uri(uri)
    with as_tracking_error(folder, uri, "nothing is lost: the folder holds all of it"), connect(uri) as client:
        home = experiment_id(client, uri, experiment)
        checkpoint = TrackedCheckpoint(study["checkpoint"], study["checkpoint_sha256"], study["family"], {})
        model_id = checkpoint_model(client, home, checkpoint)
        tags = {CHECKPOINT: checkpoint.sha256, PROFILE_ID: study["profile_id"], NOTE: _note(study)}
        run = client.create_run(home, tags=tags, run_name=f"{checkpoint.name}, units")
        run_id = run.info.run_id
        with closing(client, run_id):
            link_model(client, run, model_id)
            if study["classifier"]:
                client.log_metric(run_id, names.CLASSIFIER_ACCURACY, study["classifier"]["validation_accuracy"])
            for name in (UNITS, COMPARISON):
                client.log_artifact(run_id, str(folder / name))
            client.log_artifacts(run_id, str(folder / SHEETS), SHEETS)
            send_table(client, run_id, _ranking(folder), names.RANKING_TABLE)
    return Logged(run_id, model_id, home, public(uri))


def _ranking(folder: Path) -> pd.DataFrame:
    """The units to look at first, all sources joined."""
    import pandas as pd

    units = pd.read_parquet(folder / UNITS)
    return units.sort_values(names.UNIT_JOINED, ascending=False, na_position="last", kind="stable").head(RANKING_ROWS)


def _note(study: dict[str, Any]) -> str:
    found = [f"Unit scores of `{study['checkpoint']}`: {', '.join(study['sources'])}.", f"Labels: {study['labels']['source']}."]
    if study["classifier"]:
        low, high = study["classifier"]["interval"]
        accuracy = study["classifier"]["validation_accuracy"]
        found.append(f"Classifier: validation accuracy {accuracy:.2f} (95 % interval {low:.2f} to {high:.2f}, chance 0.5).")
    return "\n\n".join(found)
