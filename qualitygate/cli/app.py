"""All commands. Their modules import what is heavy inside the functions, so that ``--help`` needs neither torch nor mlflow."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import typer

_PREFIX = "QUALITYGATE"
_COMMANDS = (
    *("inspect", "convert", "calibrate", "validate", "gate", "decide", "check", "units", "label"),
    *("corrections", "metrics", "dynamics", "pattern", "report", "compare", "sync", "schema", "demo"),
)

app = typer.Typer(
    name="qualitygate",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": _PREFIX},
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.", show_envvar=False)) -> None:
    """Accept, correct or reject the images of a generator by looking inside it.

    Calibrate a checkpoint once, then gate as many images as you like:

        qualitygate calibrate model.pt --out profile
        qualitygate gate model.pt --profile profile --ids 0:1000 --out images

    Results go to stdout (`--json` for machines), progress and messages to stderr.
    Exit codes: 0 passed, 1 the gate failed, 2 bad input, 3 something broke, 4 inconclusive.
    Every option can be set by an environment variable: QUALITYGATE_GATE_SEED for `gate --seed`.
    """
    if version:
        from qualitygate import __version__

        typer.echo(__version__)
        raise typer.Exit


for _name in _COMMANDS:
    app.command(_name, no_args_is_help=_name not in ("demo", "sync"))(import_module(f"qualitygate.cli.{_name}").run)


def command() -> Any:
    """The command line, ready to be called."""
    return typer.main.get_command(app)


def unknown_variables(root: Any) -> list[str]:
    """Environment variables with our prefix that no option reads: most likely misspelt, so an error."""
    known = {"QUALITYGATE_DEBUG", "QUALITYGATE_CACHE"}
    for one in (root, *root.commands.values()):
        path = (_PREFIX,) if one is root else (_PREFIX, one.name)
        known |= {"_".join((*path, parameter.name)).upper().replace("-", "_") for parameter in one.params}
    return sorted(name for name in os.environ if name.startswith(f"{_PREFIX}_") and name not in known)
