"""The command line. Results go to stdout, everything else to stderr; the exit code says how it went."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

PASSED, GATE_FAILED, BAD_INPUT, BROKEN, INCONCLUSIVE = 0, 1, 2, 3, 4
"""Exit codes: passed; the gate failed; bad input or usage; something broke; inconclusive. 130 and 143 on Ctrl-C and SIGTERM."""


def main() -> NoReturn:
    """Entry point of ``qualitygate``."""
    from qualitygate.cli.app import command, unknown_variables
    from qualitygate.errors import InputError, QualityGateError

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    root = command()
    try:
        if unknown := unknown_variables(root):
            remedy = "variables are named after options: QUALITYGATE_GATE_SEED for `gate --seed`"
            raise InputError(f"unknown environment variable {', '.join(unknown)}", remedy=remedy)
        root(prog_name="qualitygate")
    except QualityGateError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if "QUALITYGATE_DEBUG" in os.environ:
            raise
        remedy = "this is not meant to happen; set QUALITYGATE_DEBUG=1 for the full story and report it"
        print(f"error: {type(error).__name__}: {error}\n  what to do: {remedy}", file=sys.stderr)
        sys.exit(BROKEN)
    sys.exit(PASSED)


def _interrupted(number: int, _: FrameType | None) -> None:
    """Ctrl-C and SIGTERM end a command by unwinding it, so that nothing half-written stays."""
    signal.signal(number, signal.SIG_IGN)  # once is enough: cleaning up is not to be interrupted
    print("interrupted; nothing half-written is left behind", file=sys.stderr)
    raise SystemExit(128 + number)
