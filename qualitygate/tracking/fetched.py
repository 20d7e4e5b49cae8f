"""Gated sets and metrics that MLflow has, copied back to be read; and the comparison of them, sent to it."""

from __future__ import annotations

import re
from pathlib import Path

from qualitygate.errors import InputError
from qualitygate.records import canonical_hash
from qualitygate.tracking.describe import CHECKPOINT, NOTE
from qualitygate.tracking.gated_set import FILES, is_gated_set
from qualitygate.tracking.metrics_logging import METRICS_ID
from qualitygate.tracking.metrics_set import FILES as METRIC_FILES
from qualitygate.tracking.metrics_set import REPORT
from qualitygate.tracking.sending import EXPERIMENT, as_tracking_error, closing, find_or_create_run
from qualitygate.tracking.store import artifacts, connect, experiment_id, tracking_uri

COMPARED = "qualitygate.compared"
COMPARISON_ID = "qualitygate.comparison_id"


def is_run_id(text: str) -> bool:
    """Whether a text is the id of an MLflow run."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def fetch_gated_set(run_id: str, folder: Path, uri: str | None = None) -> Path:
    """Copy what a page shows of a gate's run into ``folder``.

    Raises:
        InputError: there is no such run, or it is not that of a gate.
        TrackingError: MLflow cannot be reached.
    """
    with artifacts(tracking_uri(uri), run_id=run_id) as found:
        there = set(found.files())
        for name in sorted(there & set(FILES)):
            found.download(name, folder)
    if not is_gated_set(folder):
        raise InputError(
            f"Run {run_id} is not that of a gate", f"files {', '.join(sorted(there)[:5]) or 'none'}", "a run that `qualitygate gate` logged"
        )
    return folder


def fetch_metrics(sha256: str, run_id: str, folder: Path, uri: str | None = None) -> Path | None:
    """Copy the newest metrics of a checkpoint, of the experiment of a gate's run, into ``folder``; None if there are none."""
    uri = tracking_uri(uri)
    with connect(uri) as client:
        home = client.get_run(run_id).info.experiment_id
        query = f"tags.`{CHECKPOINT}` = '{sha256}' and tags.`{METRICS_ID}` LIKE '%'"
        found = client.search_runs([home], query, max_results=1, order_by=["attributes.start_time DESC"])
    if not found:
        return None
    with artifacts(uri, run_id=found[0].info.run_id) as files:
        for name in sorted(set(files.files()) & set(METRIC_FILES)):
            files.download(name, folder)
    return folder if (folder / REPORT).is_file() else None


def log_comparison(page: Path, runs: list[str], note: str, uri: str | None = None, experiment: str = EXPERIMENT) -> str:
    """Send a page that compares runs, as a run of its own; the same comparison again replaces it. Returns the run's id.

    Args:
        page: the HTML file.
        runs: ids of runs, or other names of what was compared.
        note: what differs, in Markdown.
        uri: where MLflow is; default as in `tracking_uri`.
        experiment: name of the experiment, created if it is new.

    Raises:
        TrackingError: MLflow cannot be reached, or refused something.
    """
    uri = tracking_uri(uri)
    remedy = "nothing is lost: the page stands; when the cause is gone, run `qualitygate compare` again"
    with as_tracking_error(page, uri, remedy), connect(uri) as client:
        home = experiment_id(client, uri, experiment)
        identity = (COMPARISON_ID, canonical_hash(runs))
        run = find_or_create_run(client, home, identity, f"comparison of {len(runs)} gated sets")
        run_id: str = run.info.run_id
        with closing(client, run_id):
            client.set_tag(run_id, COMPARED, ", ".join(runs)[:5000])
            client.set_tag(run_id, NOTE, note[:5000])
            client.log_artifact(run_id, str(page))
    return run_id
