"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="Where to run: auto, cpu, cuda, cuda:1.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Tracking = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow tracking URI; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.", show_default=False),
]


def chosen_device(device: str) -> str:
    """The device, ``auto`` resolved; an error where it is not there."""
    import torch

    from qualitygate.errors import InputError

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Cannot run on {device}", str(error).splitlines()[0], "auto, cpu, or a GPU that torch can see") from error
    return device
