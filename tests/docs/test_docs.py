"""The documentation: reference pages are what their scripts make, command lines are ones that the program takes, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from qualitygate.cli.app import command

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^(?:```(?:sh|bash|console|)\n(.*?)^```|((?:^    .*\n)+))", re.MULTILINE | re.DOTALL)


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", ["policy.md", "names.md"])
def test_reference_pages_are_up_to_date(file: str) -> None:
    made = reference().PAGES[file]()
    assert (ROOT / "docs" / file).read_text(encoding="utf8") == made, "run `python docs/reference.py`"


def command_lines() -> Iterator[tuple[str, str]]:
    """Every `qualitygate …` line of a block, with the page that it stands on; continued lines are joined."""
    for page in PAGES:
        for fenced, indented in _BLOCK.findall(page.read_text(encoding="utf8")):
            joined = re.sub(r"\\\n\s*", " ", fenced or indented)
            for line in map(str.strip, joined.splitlines()):
                if line.startswith("qualitygate "):
                    yield page.name, line


LINES = sorted(set(command_lines()))


def test_there_are_command_lines() -> None:
    assert {page for page, _ in LINES} >= {"README.md", "tutorial-ci.md", "tutorial-production.md", "tutorial-review.md"}


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_line_is_one_that_the_program_takes(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    root = command()
    name, *rest = words
    assert name in root.commands, f"{page}: there is no command {name}"
    try:
        root.commands[name].make_context(name, rest, parent=click.Context(root))
    except click.exceptions.Exit:  # --help
        pass
    except click.UsageError as error:
        if "does not exist" not in error.format_message():  # files of the reader's
            raise AssertionError(f"{page}: {line}\n{error.format_message()}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
