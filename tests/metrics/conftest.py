"""The recorded features, probabilities and distances, and what the reference implementations make of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from reference.vectors import FOLDER, Vectors, load


@pytest.fixture(scope="session")
def recorded() -> Vectors:
    return load("metrics")


@pytest.fixture(scope="session")
def expected(recorded: Vectors) -> dict[str, Any]:
    return json.loads((FOLDER / "metrics.json").read_text())["expected"]
