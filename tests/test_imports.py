"""Who may import whom, and what must not be loaded by looking at the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qualitygate
from qualitygate.generators.families import DISCRIMINATORS, FAMILIES, GENERATORS
from qualitygate.plugins import Table, resolve
from qualitygate.policy.corrections import METHODS
from qualitygate.policy.scores import SCORES
from qualitygate.records.metrics import METRICS
from qualitygate.units.table import UNIT_SCORES

PACKAGE = Path(qualitygate.__file__).parent
HEAVY = ("torch", "mlflow", "great_expectations", "pandas", "pyarrow", "matplotlib")

ROWS: tuple[tuple[str, ...], ...] = (
    ("errors", "names", "timing"),
    ("plugins",),
    ("records",),
    ("policy",),
    ("latents", "storage", "mlflow_client"),
    ("generators",),
    ("checkpoints",),
    ("scores",),
    ("corrections",),
    ("features",),  # from weight files, which are read as checkpoints are
    ("metrics",),
    ("units",),
    ("expectations", "reports", "tracking"),
    ("testing", "requests"),
    ("gating",),
    ("produce",),
    ("studies",),
    ("callbacks",),
    ("cli",),
)
"""A room imports only from rows above its own, and from itself."""
ROW = {room: row for row, rooms in enumerate(ROWS) for room in rooms}

NEVER = {
    "policy": ("torch", "great_expectations"),
    "expectations": ("torch",),
    "tracking": ("torch", "great_expectations"),
    "reports": ("torch", "mlflow", "great_expectations"),
}
"""What a room must not import at all, wherever in its files."""


def modules() -> dict[str, Path]:
    """Every module of the package by its name inside the package; the package itself is the empty name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, inside: dict[str, Path]) -> Iterator[str]:
    """Full names of all modules that a file imports: inside functions and for type checkers only as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            yield node.module
            submodules = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in submodules if name.removeprefix("qualitygate.") in inside)


def imported_on_import(module: str, path: Path, inside: dict[str, Path]) -> set[str]:
    """Modules of the package that importing one imports by name: not those in functions, nor those for type checkers only."""
    found: set[str] = set()
    waiting = list(ast.parse(path.read_text(encoding="utf8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("qualitygate.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            place = (node.module or "").removeprefix("qualitygate").removeprefix(".")
            found |= {name if (name := f"{place}.{alias.name}".strip(".")) in inside else place for alias in node.names}
        elif not isinstance(node, ast.FunctionDef | ast.If) or (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test)):
            waiting += ast.iter_child_nodes(node)
    return found & set(inside) - {"", module}


def room(module: str) -> str:
    """The most specific room of the table that a module belongs to."""
    parts = module.split(".")
    rooms = [name for length in range(len(parts), 0, -1) if (name := ".".join(parts[:length])) in ROW]
    assert rooms, f"{module} belongs to no room: add it to the table, and to the drawing of the house"
    return rooms[0]


INSIDE = modules()


@pytest.mark.parametrize("module", [name for name in INSIDE if name])
def test_a_room_imports_only_from_rows_above(module: str) -> None:
    own = room(module)
    for name in imported(INSIDE[module], INSIDE):
        if not name.startswith("qualitygate."):
            continue
        other = room(name.removeprefix("qualitygate."))
        assert other == own or ROW[other] < ROW[own], f"{module} (row {ROW[own]}) imports {name} (row {ROW[other]})"


def test_nothing_imports_itself_in_a_circle() -> None:
    imports = {module: imported_on_import(module, path, INSIDE) for module, path in INSIDE.items()}
    free: set[str] = set()
    while found := {module for module, needed in imports.items() if module not in free and needed <= free}:
        free |= found
    assert not {module: sorted(needed - free) for module, needed in imports.items() if module not in free}


TABLES = [
    *((name, place) for name, family in FAMILIES.items() for place in (family.generator, family.discriminator, family.layouts) if place),
    *UNIT_SCORES.ours.items(),
    *((name, f"qualitygate.metrics.{one.where}") for name, one in METRICS.items()),
    *SCORES.ours.items(),
    *METHODS.ours.items(),
    *((name, score.read_by) for name, score in SCORES.items() if score.read_by),
    *((name, made.made_by) for name, made in METHODS.items()),
]


@pytest.mark.parametrize(("name", "place"), TABLES, ids=[place for _, place in TABLES])
def test_the_lazy_tables_name_what_is_there(name: str, place: str) -> None:
    """Strings are no imports: a table may name what stands further down, and is not to be believed without a look."""
    assert place.split(":")[0].startswith("qualitygate.")
    assert resolve(place), name


@pytest.mark.parametrize("table", [GENERATORS, DISCRIMINATORS], ids=["generators", "discriminators"])
def test_a_family_has_the_name_of_its_row(table: Table[Any]) -> None:
    assert {name: thing.family for name, thing in table.items()} == {name: name for name in table}


@pytest.mark.parametrize("table", [SCORES, METHODS, UNIT_SCORES], ids=["scores", "corrections", "unit scores"])
def test_a_thing_has_the_name_of_its_row(table: Table[Any]) -> None:
    assert {name: thing.name for name, thing in table.items()} == {name: name for name in table}


@pytest.mark.parametrize("barred", NEVER)
def test_what_a_room_must_not_import(barred: str) -> None:
    for module in (name for name in INSIDE if name and room(name).split(".")[0] == barred):
        for name in imported(INSIDE[module], INSIDE):
            assert name.split(".")[0] not in NEVER[barred], f"{module} imports {name}"


@pytest.mark.parametrize(
    ("library", "homes"),
    [("mlflow", {"mlflow_client", "tracking"}), ("great_expectations", {"expectations"}), ("typer", {"cli"}), ("rich", {"cli"})],
)
def test_libraries_that_one_room_knows(library: str, homes: set[str]) -> None:
    users = {
        room(module).split(".")[0]
        for module, path in INSIDE.items()
        if module and any(name.split(".")[0] == library for name in imported(path, INSIDE))
    }
    assert users <= homes


def test_the_package_exports_what_it_says() -> None:
    for name in qualitygate.__all__:
        assert getattr(qualitygate, name) is not None
    assert dir(qualitygate) == sorted(qualitygate.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qualitygate.nothing


LOADED = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
HELP = """
import sys
from qualitygate.cli import main
sys.argv = ["qualitygate", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    assert stop.code == 0, stop.code
"""


@pytest.mark.parametrize(
    ("program", "arguments"),
    [("import qualitygate; dir(qualitygate)", []), (HELP, ["--help"]), (HELP, ["gate", "--help"]), (HELP, ["--version"])],
)
def test_nothing_heavy_is_loaded_by_looking(program: str, arguments: list[str]) -> None:
    command = [sys.executable, "-c", f"{program}\n{LOADED}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "qualitygate" in loaded
    assert not loaded & set(HEAVY)


def test_no_room_hides_a_name_that_people_use() -> None:
    """A submodule becomes an attribute of the package once it is imported; it must not be called like something exported."""
    assert not {path.stem for path in PACKAGE.iterdir()} & set(qualitygate.__all__)
