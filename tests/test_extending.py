"""How many files of the package a new thing touches: its own, and the table of its kind. A plug-in touches none (`test_plugins`)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import qualitygate
from qualitygate.generators.families import FAMILIES
from qualitygate.policy.corrections import METHODS
from qualitygate.policy.scores import SCORES
from qualitygate.records.metrics import METRICS
from qualitygate.units.table import UNIT_SCORES

PACKAGE = Path(qualitygate.__file__).parent


def named_in(text: str) -> set[str]:
    """Files of the package in whose code a text stands as it is, docstrings aside."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
        if any(isinstance(node, ast.Constant) and node.value == text and id(node) not in prose for node in ast.walk(tree)):
            found.add(path.relative_to(PACKAGE).as_posix())
    return found


def home(place: str) -> str:
    """File of a row's ``module:attribute``."""
    return place.partition(":")[0].removeprefix("qualitygate.").replace(".", "/") + ".py"


@pytest.mark.parametrize("name", ["single_ablation", "high_rate_ablation", "random_ablation", "zero_ablation", "local_region"])
def test_a_correction_is_two_files(name: str) -> None:
    """Settings and row in one, the edit in the other."""
    assert len(named_in(name) | {"policy/corrections.py", home(METHODS[name].made_by)}) <= 2


@pytest.mark.parametrize("name", ["defective", "frechet", "contribution"])
def test_a_unit_score_is_two_files(name: str) -> None:
    assert len(named_in(name) | {"units/table.py", home(UNIT_SCORES.ours[name])}) <= 2


@pytest.mark.parametrize("name", ["biggan", "biggan-deep", "pggan"])
def test_a_family_is_three_files(name: str) -> None:
    """Networks, layouts and row."""
    family = FAMILIES[name]
    places = {home(place) for place in (family.generator, family.discriminator, family.layouts) if place}
    assert len(named_in(name) | places | {"generators/families/__init__.py"}) <= 3


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.where])
def test_a_set_metric_is_a_file_and_a_row(name: str) -> None:
    assert (PACKAGE / "metrics" / f"{METRICS[name].where.partition(':')[0]}.py").is_file()


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if score.read_by])
def test_a_score_is_a_reader_and_a_row(name: str) -> None:
    assert (PACKAGE / home(SCORES[name].read_by)).is_file()
