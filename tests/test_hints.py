"""What we tell people to install: by the name under which the package index knows it, and nothing that is another project's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
FILES = [
    *ROOT.glob("*.md"),
    *(path for room in ("qualitygate", "docs", "pipelines") for path in (ROOT / room).rglob("*") if path.is_file()),
]
HINT = re.compile(r"\bpip install ((?:--?[a-z-]+ )*)(.+?)(?=[`\"#;]|  |$)", re.MULTILINE)


def requirements(line: str) -> list[str]:
    """Names of what a line after ``pip install`` asks for; options and their values are not asked for."""
    words = re.sub(r"(--index-url|--constraint|-c) \S+", "", line).replace("'", " ").split()
    return [re.split(r"[\[<>=~!]", word)[0] for word in words if re.match(r"[A-Za-z]", word)]


def hints() -> list[tuple[Path, str]]:
    found = []
    for path in FILES:
        if path.suffix in (".py", ".md", ".yml", ".yaml", ".html"):
            found += [(path.relative_to(ROOT), match[2].strip()) for match in HINT.finditer(path.read_text(encoding="utf8"))]
    return found


def known() -> set[str]:
    extras = [one for group in PROJECT["optional-dependencies"].values() for one in group]
    return {re.split(r"[\[<>=~! ]", one)[0] for one in [*PROJECT["dependencies"], *extras]} | {"scikit-learn"}


def test_the_distribution_is_not_called_like_the_other_project() -> None:
    assert PROJECT["name"] == "qualitygate-images"
    assert PROJECT["scripts"] == {"qualitygate": "qualitygate.cli:main"}
    assert not [one for group in PROJECT["optional-dependencies"].values() for one in group if one.startswith("qualitygate")]


def test_there_are_hints_for_everything_that_only_some_need() -> None:
    named = {name for _, line in hints() for name in requirements(line)}
    assert {"ray", "captum", "lightning", "huggingface_hub", "scikit-learn"} <= named


@pytest.mark.parametrize(("path", "line"), hints(), ids=lambda value: str(value))
def test_a_hint_names_a_dependency_itself(path: Path, line: str) -> None:
    wrong = set(requirements(line)) - known()
    assert not wrong, f"{path} says: pip install {line}"
