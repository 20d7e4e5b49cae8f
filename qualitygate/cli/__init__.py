"""The command line. Results go to stdout, everything else to stderr; the exit code says how it went."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

PASSED, GATE_FAILED, BAD_INPUT, BROKEN, INCONCLUSIVE, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit codes: passed; the gate failed; bad input or usage; something broke; inconclusive; Ctrl-C."""


def main() -> None:
    """Entry point of ``qualitygate``."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    import click
    from typer.rich_utils import rich_format_error

    from qualitygate.cli.app import command, unknown_variables
    from qualitygate.errors import QualityGateError

    signal.signal(signal.SIGTERM, _terminated)
    root = command()
    try:
        if unknown := unknown_variables(root):
            print(f"error: unknown environment variable {', '.join(unknown)}\n"
                  "  what to do: see `qualitygate COMMAND --help` for the names of the variables", file=sys.stderr)  # fmt: skip
            return BAD_INPUT
        code = root.main(args=arguments, prog_name="qualitygate", standalone_mode=False)
        return code if isinstance(code, int) else PASSED
    except click.ClickException as error:
        rich_format_error(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted; nothing half-written was left behind", file=sys.stderr)
        return INTERRUPTED
    except QualityGateError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN
    except Exception as error:
        if "QUALITYGATE_DEBUG" in os.environ:
            raise
        print(f"error: {type(error).__name__}: {error}\n  what to do: this is not meant to happen; set QUALITYGATE_DEBUG=1 for the full "
              "story and report it", file=sys.stderr)  # fmt: skip
        return BROKEN


def _terminated(number: int, _: FrameType | None) -> None:
    """SIGTERM ends the command like Ctrl-C does: by unwinding, so that nothing half-written stays."""
    raise SystemExit(128 + number)
