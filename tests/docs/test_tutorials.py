"""The tutorials, followed to the letter in an empty folder."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs.tutorials import Step, missing, steps

from qualitygate.checkpoints.demonstration import face_generator
from qualitygate.errors import InputError

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs").glob("tutorial-*.md"))
_PATIENCE = 1800.0  # seconds for one block, on a machine that is busy
_STATE = 'trap "export -p > ../environment.sh" EXIT; [ ! -f ../environment.sh ] || . ../environment.sh\n'


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """Environment of a reader's terminal: our command and Python come first, the cache holds the face generator and nothing else."""
    try:
        weights = face_generator()
    except InputError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"the face generator cannot be fetched: {error}")
    programs, cache = tmp_path / "bin", tmp_path / "cache"
    programs.mkdir()
    cache.mkdir()
    shutil.copy(weights, cache)
    call = "from qualitygate.cli import main; main()"
    for name, words in {"python": [], "qualitygate": ["-c", call]}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *words])} "$@"\n', encoding="utf8")
        program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUALITYGATE_", "MLFLOW_"))}
    return {**kept, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "QUALITYGATE_CACHE": str(cache)}


def follow(step: Step, folder: Path, shell: dict[str, str]) -> None:
    """Do one step; what was exported stays for the next one, as in a terminal."""
    if step.file is not None:
        (folder / step.file).write_text(step.text, encoding="utf8")
        return
    done = subprocess.run(
        ["bash", "-c", _STATE + step.script],
        cwd=folder,
        env=shell,
        text=True,
        timeout=_PATIENCE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    print(step.text, done.stdout, sep="\n")
    assert done.returncode == 0, f"{step.text}\n{done.stdout[-4000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("file", TUTORIALS, ids=lambda file: file.stem)
def test_a_tutorial_can_be_followed_to_the_letter(file: Path, shell: dict[str, str], tmp_path: Path) -> None:
    page, folder = file.read_text(encoding="utf8"), tmp_path / "empty"
    folder.mkdir()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    for step in steps(page):
        follow(step, folder, shell)
    print(f"{file.name}: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before:.0f} s of user time")
    assert missing(page, folder) == []


@pytest.mark.parametrize("file", TUTORIALS, ids=lambda file: file.stem)
def test_a_tutorial_consists_of_files_and_commands(file: Path) -> None:
    found = list(steps(file.read_text(encoding="utf8")))
    assert "qualitygate demo --fetch" in found[0].text
    assert any(step.file == "policy.yaml" for step in found)


@pytest.mark.parametrize(("line", "code"), [("true", 0), ("false", 99), ("false  # exit code 1", 0), ("true # exit code 1", 99)])
def test_an_exit_code_is_what_the_page_says(line: str, code: int) -> None:
    assert subprocess.run(["bash", "-c", Step(line).script], check=False, stdout=subprocess.DEVNULL).returncode == code


def test_a_block_of_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a named file"):
        list(steps("```python\nprint()\n```\n"))


def test_a_file_that_the_page_names_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.json").touch()
    page = "`set/a.json`, `a.json` and `gallery/best` of `low_rate_0.1`\n"
    assert missing(page, tmp_path) == []
    assert missing("`set/b` and `c.html`", tmp_path) == ["set/b", "c.html"]
