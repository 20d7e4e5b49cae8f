"""A process whose move of an alias is held back between the look and the move, for tests of two at once.

    python -m tests.tracking.held_back PLACE NAME promote VERSION_NAME VERSION ALIAS EXPECTED FOLDER RUN_ID URI
    python -m tests.tracking.held_back PLACE NAME check …

Writes ``NAME-between`` into the folder PLACE when it is about to move the alias, and goes on when ``go`` is there; ``NAME-waits`` when it
waits for one that is there, ``NAME-moved`` when it has moved.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
_WAITING_IN = ("filelock", "qualitygate.tracking.claim")
_PATIENCE = 5000  # looks for the file; after that the test has failed and nobody will write it
_sleep = time.sleep


def start(place: Path, name: str, *arguments: object) -> subprocess.Popen[str]:
    """Start such a process."""
    command = [sys.executable, "-m", "tests.tracking.held_back", place, name, *arguments]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def appears(place: Path, *names: str, process: subprocess.Popen[str]) -> str:
    """Wait for the first of these files; its name."""
    while process.poll() is None:
        if there := [name for name in names if (place / name).exists()]:
            return there[0]
        _sleep(0.02)
    raise AssertionError(f"the process ended with {process.returncode}: {process.communicate()}")


def _hold_back(place: Path, name: str) -> None:
    from mlflow import MlflowClient

    move = MlflowClient.set_registered_model_alias

    def held(*arguments: object) -> None:
        (place / f"{name}-between").touch()
        for _ in range(_PATIENCE):
            if (place / "go").exists():
                break
            _sleep(0.02)
        move(*arguments)
        (place / f"{name}-moved").touch()

    def sleep(seconds: float) -> None:
        if sys._getframe(1).f_globals["__name__"].startswith(_WAITING_IN) and any(place.glob("*-between")):
            (place / f"{name}-waits").touch()
        _sleep(seconds)

    MlflowClient.set_registered_model_alias = held
    time.sleep = sleep


def _main(place: str, name: str, what: str, arguments: Sequence[str]) -> NoReturn:
    from qualitygate.cli import main
    from qualitygate.errors import QualityGateError
    from qualitygate.tracking.promotion import Version, promote

    _hold_back(Path(place), name)
    if what == "check":
        sys.argv = ["qualitygate", "check", *arguments]
        main()
    model, version, alias, expected, folder, run_id, uri = arguments
    try:
        promote(Version(model, version), alias, expected or None, Path(folder), run_id, uri)
    except QualityGateError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:4], sys.argv[4:])
