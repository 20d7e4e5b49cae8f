"""How many files of the package a new thing of a kind touches: as many as docs/extending.md says, counted on things that are there."""

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


def said(path: Path) -> set[str]:
    """Modules that a file imports, what it takes from them as "module:name", and its strings but for docstrings."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and isinstance(node.body[0], ast.Expr)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}:{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found.add(node.value)
    return found


SAID = {path.relative_to(PACKAGE).as_posix(): said(path) for path in PACKAGE.rglob("*.py")}


def files_that_name(*words: str) -> set[str]:
    """Files of the package that import one of these modules or have one of these strings, and the modules' own."""
    own = {file for word in words if (file := word.removeprefix("qualitygate.").replace(".", "/") + ".py") in SAID}
    return own | {file for file, found in SAID.items() if found & set(words)}


@pytest.mark.parametrize("family", ["pggan", "stylegan3", "biggan-deep"])
def test_a_family_is_three_files(family: str) -> None:
    """Its networks, its layouts, and its row; those here share nothing with another family's layouts."""
    row = FAMILIES[family]
    places = {place.split(":")[0] for place in (row.generator, row.discriminator, row.layouts) if place}
    name = family.replace("-", "_")
    expected = {f"generators/families/{name}.py", f"checkpoints/layouts/{name}.py", "generators/families/__init__.py"}
    assert files_that_name(family, *places) == expected


def test_nobody_else_knows_a_family() -> None:
    """What one family can and another cannot is asked of the generator."""
    modules = {place.split(":")[0] for row in FAMILIES.values() for place in (row.generator, row.discriminator) if "families" in place}
    homes = ("generators/families/", "checkpoints/layouts/")
    assert not {file for file in files_that_name(*modules) if not file.startswith(homes)}


@pytest.mark.parametrize("name", ["single_ablation", "high_rate_ablation", "random_ablation", "zero_ablation", "local_region"])
def test_a_correction_is_two_files(name: str) -> None:
    """Settings and row in one, the edit in the other."""
    edit = METHODS[name].made_by.partition(":")[0].removeprefix("qualitygate.").replace(".", "/") + ".py"
    assert files_that_name(name) | {edit} <= {"policy/corrections.py", edit}


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if score.read_by])
def test_a_sample_score_is_two_files(name: str) -> None:
    """Its reader in one, its row in the other: nobody else takes the reader, whose scores are named, limited, summed, joined, recorded and
    shown as those of a package of somebody else's are, which has no file here at all (`test_plugins`)."""
    reader = SCORES[name].read_by
    assert reader is not None
    own = reader.partition(":")[0].removeprefix("qualitygate.").replace(".", "/") + ".py"
    assert files_that_name(reader) | {own} == {"policy/scores.py", own}


@pytest.mark.parametrize("name", ["defective", "frechet", "contribution"])
def test_a_unit_score_is_two_files(name: str) -> None:
    """Its own, and the table."""
    own = UNIT_SCORES.ours[name].partition(":")[0].removeprefix("qualitygate.").replace(".", "/") + ".py"
    assert files_that_name(name) | {own} <= {"units/table.py", own}


@pytest.mark.parametrize("name", ["kid", "coverage"])
def test_a_set_metric_is_two_files(name: str) -> None:
    """Its own, and the table; its name is a promise, which stands with all others. What is its own is not asked for by any other file."""
    module = f"qualitygate.metrics.{METRICS[name].where.partition(':')[0]}"
    own = module.removeprefix("qualitygate.").replace(".", "/") + ".py"
    assert files_that_name(name, module) - {"names.py"} <= {"records/metrics.py", own}
