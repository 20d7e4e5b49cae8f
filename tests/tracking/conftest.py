from __future__ import annotations

import pytest

from qualitygate.mlflow_client import connect


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> str:
    """One SQLite store for all tests: making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    with connect(uri):
        pass
    return uri


@pytest.fixture
def client(database):
    with connect(database) as client:
        yield client


@pytest.fixture
def experiment(request) -> str:
    """An experiment of the test's own."""
    return request.node.name
