"""Public functions that take or give tensors say of what shape: a reader need not run them to know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import qualitygate

PACKAGE = Path(qualitygate.__file__).parent
ROOMS = ("latents.py", "generators", "scores", "corrections", "metrics", "units", "features", "testing", "gating")
ARRAY = re.compile(r"\b(Tensor|ndarray)\b")
SHAPE = re.compile(r"\(([\w·×+*/−. …-]|\([^()]*\))+,([^()]|\([^()]*\))*\)|\bshape\b|\bscalar\b")
INHERITED = {
    "begin",
    "advance",
    "finish",
    "forward",
    "begin_moved",
    "by_position",
    "resume",
    "styles",
    "close",
    "__call__",
    "spatial",
    "edit",
    "reached",
    "reached_in_blocks",
}
"""Methods of a contract, whose base class says it once."""


def public(body: list[ast.stmt], inside: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name not in INHERITED:
            yield inside + node.name, node


def takes_or_gives_arrays(node: ast.FunctionDef) -> bool:
    hints = [one.annotation for one in (*node.args.args, *node.args.kwonlyargs) if one.annotation is not None]
    return any(ARRAY.search(ast.unparse(one)) for one in (*hints, *([node.returns] if node.returns else [])))


def functions() -> list[tuple[str, str]]:
    """Name and docstring of every public function with an array in its signature."""
    paths = [path for room in ROOMS for path in ([PACKAGE / room] if room.endswith(".py") else sorted((PACKAGE / room).rglob("*.py")))]
    return [
        (f"{path.relative_to(PACKAGE)}:{name}", ast.get_docstring(node) or "")
        for path in paths
        for name, node in public(ast.parse(path.read_text(encoding="utf8")).body)
        if takes_or_gives_arrays(node)
    ]


def test_there_are_many() -> None:
    assert len(functions()) > 100


@pytest.mark.parametrize(("name", "docstring"), functions(), ids=[name for name, _ in functions()])
def test_it_says_of_what_shape(name: str, docstring: str) -> None:
    assert SHAPE.search(docstring), f"{name} does not say of what shape its arrays are: {docstring[:80]!r}"
