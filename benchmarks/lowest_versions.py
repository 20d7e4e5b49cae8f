"""Runs the tests with the lowest versions that `pyproject.toml` allows, in an environment of its own.

    python benchmarks/lowest_versions.py /tmp/lowest -m "not slow"
    python benchmarks/lowest_versions.py /tmp/lowest --keep torch==2.13.0 -m "not slow"

Every dependency, optional ones included, is pinned to its lower bound, and nothing else is: what they bring is whatever they ask for.
``--keep`` pins one elsewhere, for an index that has no small build of the lowest torch. What follows is for pytest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BOUND = re.compile(r"^(?P<name>[A-Za-z0-9_.-]+(\[[a-z0-9,]+\])?)>=(?P<version>[0-9.]+)")


def lowest(requirements: Iterable[str], keep: Iterable[str]) -> list[str]:
    """``name==version`` for the lower bound of each requirement, unless another version of it is to be kept."""
    kept = {one.partition("==")[0]: one for one in keep}
    pinned = []
    for one in requirements:
        bound = _BOUND.match(one)
        name = re.split(r"[\[<>=!~ ]", one)[0]
        pinned.append(kept.get(name) or (f"{bound['name']}=={bound['version']}" if bound else one))
    return list(dict.fromkeys(pinned))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the environment; made if it is not there")
    parser.add_argument("--keep", action="append", default=[], metavar="NAME==VERSION")
    given, tests = parser.parse_known_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["hub"], *extras["lightning"], *extras["metrics"]]
    python = given.folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(given.folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1"], check=True)
        pinned = lowest(wanted, given.keep)
        print("\n".join(pinned), flush=True)
        names = {re.split(r"[\[<>=!~ ]", one)[0] for one in wanted}
        tools = [one for one in project["dependency-groups"]["dev"] if re.split(r"[\[<>=!~ ]", one)[0] not in names]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pinned, *tools], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--editable", str(ROOT)], check=True)
    old = ["-W", "ignore::DeprecationWarning"]  # an old library that calls what a new one advises against is not our fault
    sys.exit(subprocess.run([str(python), "-m", "pytest", *old, *tests], cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
