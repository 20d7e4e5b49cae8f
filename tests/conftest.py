"""Makes the helpers of the tests importable from all of them, ``reference.vectors`` and its neighbours; holds the shapes that docstrings
say; and the one MLflow server."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import shapes


@pytest.fixture(autouse=True)
def held_shapes() -> None:
    """Functions that are `shapes.checked` stand, from now on, in the place of those of `shapes.MADE` that are imported by now."""
    for place, shape in shapes.MADE.items():
        home, name = f"qualitygate.{place}".split(":")
        *owner, attribute = name.split(".")
        holder = functools.reduce(lambda outer, inner: getattr(outer, inner, None), owner, sys.modules.get(home))
        original = getattr(holder, attribute, None)
        if original is not None and not hasattr(original, "__wrapped__"):
            for one in (holder, *sys.modules.values()):
                if getattr(one, "__dict__", {}).get(attribute) is original:
                    setattr(one, attribute, shapes.checked(original, shape))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a tracking server. Starting one takes ten seconds: slow tests share it, each under names of its own."""
    from mlflow_server import mlflow_server

    with mlflow_server(tmp_path_factory.mktemp("server")) as address:
        yield address
