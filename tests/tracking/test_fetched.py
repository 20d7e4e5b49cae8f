"""What MLflow has comes back as files; a comparison goes there as a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import LoggedModelOutput

from qualitygate.errors import InputError, TrackingError
from qualitygate.mlflow_client import experiment_id
from qualitygate.tracking.fetched import comparison_parcel, fetch_models, run_of
from qualitygate.tracking.sending import send
from qualitygate.tracking.studies import dynamics_parcel
from tests.tracking.test_studies import CLA, record, snapshot


def test_a_comparison_that_is_not_sent_is_made_again(database, tmp_path):
    """A page is no folder that could be sent later."""
    with pytest.raises(TrackingError) as raised:
        send(comparison_parcel(tmp_path / "not-there.html", ["a", "b"], ""), database, "pages")
    assert "qualitygate sync" not in str(raised.value)
    assert "`qualitygate compare` again" in str(raised.value)


def test_the_models_of_a_run_are_fetched_once_and_scored_as_themselves(database, client, experiment, tmp_path) -> None:
    home = experiment_id(client, database, experiment)
    run = client.create_run(home)
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    whole, empty = (client.create_logged_model(home, name=name) for name in ("whole", "empty"))
    client.log_model_artifacts(whole.model_id, str(weights.parent))
    client.log_outputs(run.info.run_id, [LoggedModelOutput(whole.model_id, 400), LoggedModelOutput(empty.model_id, 800)])
    for _ in range(2):
        found = {one.step: one for one in fetch_models(run.info.run_id, tmp_path / "models", database)}
        assert Path(found[400].source).read_bytes() == b"weights"
        assert found[800].source == f"models:/{empty.model_id}"

    logged = send(dynamics_parcel(record(snapshot(400, 1.0, whole.model_id)), None), database, experiment)
    assert logged.model_id == whole.model_id
    assert client.get_logged_model(whole.model_id).metrics[0].key == CLA


def test_a_run_without_models(database, client, experiment, tmp_path) -> None:
    run = client.create_run(experiment_id(client, database, experiment))
    with pytest.raises(InputError, match="no logged models"):
        fetch_models(run.info.run_id, tmp_path, database)
    with pytest.raises(InputError, match="has nothing of that name"):
        fetch_models("0" * 32, tmp_path, database)


@pytest.mark.parametrize(
    ("source", "run_id"), [("runs:/abc123", "abc123"), ("runs:/abc123/", "abc123"), ("runs:/abc/model.pt", None), ("model.pt", None)]
)
def test_which_source_is_a_whole_run(source: str, run_id: str | None) -> None:
    assert run_of(source) == run_id
