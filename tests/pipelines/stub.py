"""A stand-in for the command: it notes what it was given, writes a record, and ends with a code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

OPTIONS = "QUALITYGATE_CHECK_"


def write_stub(folder: Path, code: int, verdict: str | None = None) -> Path:
    """Put ``qualitygate``, ``pip`` and ``python`` into a folder for ``PATH``; returns the file of what it was given.

    What it notes: its words, a line each, then the variables that stand for options. Without a verdict it writes no record.
    """
    folder.mkdir()
    given = folder / "given"
    record = f'mkdir "$out"; echo \'{{"verdict": "{verdict}"}}\' > "$out/check.json"; touch "$out/report.html"' if verdict else ""
    scripts = {
        "qualitygate": f'printf "%s\\n" "$@" > {given}; env | grep ^{OPTIONS} >> {given} || true\n'
        f'out=$QUALITYGATE_CHECK_OUT; while [ $# -gt 0 ]; do if [ "$1" = --out ]; then out=$2; fi; shift; done\n'
        f"{record}\nexit {code}\n",
        "pip": f'printf "%s\\n" "pip $*" >> {folder / "installed"}\n',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}", encoding="utf8")
        (folder / name).chmod(0o755)
    (folder / "python").symlink_to(sys.executable)
    return given


def words_and_options(given: Path) -> tuple[list[str], Mapping[str, str]]:
    """What the stand-in noted: words, and options that were not empty."""
    lines = given.read_text(encoding="utf8").splitlines()
    words = [line for line in lines if not line.startswith(OPTIONS)]
    options = dict(line.removeprefix(OPTIONS).split("=", 1) for line in lines if line.startswith(OPTIONS))
    return words, {name: value for name, value in options.items() if value}
