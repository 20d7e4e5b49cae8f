"""Makes the helpers of the tests importable from all of them, ``reference.vectors`` and its neighbours; and the one MLflow server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a tracking server. Starting one takes ten seconds: slow tests share it, each under names of its own."""
    from mlflow_server import mlflow_server

    with mlflow_server(tmp_path_factory.mktemp("server")) as address:
        yield address
