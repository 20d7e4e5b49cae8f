"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qualitygate.cli.source import Source
    from qualitygate.generators.base import Discriminator, Generator
    from qualitygate.policy.model import Policy

Device = Annotated[str, typer.Option(help="Where to run: auto, cpu, cuda, cuda:1.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="Policy in YAML; default: the profile's, or the family's.", show_default=False)
]
Tracking = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow tracking URI; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.", show_default=False),
]
Experiment = Annotated[str, typer.Option(help="MLflow experiment.")]
Track = Annotated[bool, typer.Option(help="Log to MLflow. Never changes a verdict.")]
ProfileFolder = Annotated[Path, typer.Option("--profile", help="Profile made by `calibrate`.", show_default=False)]
SampleSeed = Annotated[int, typer.Option(help="Seed of the samples; any but the calibration's.", min=0)]
LabelSeed = Annotated[int | None, typer.Option(help="Seed of the labelled samples; default: the calibration's.", show_default=False)]
Real = Annotated[
    str | None, typer.Option(help="Real images: a folder, .zip, .tar, .parquet, .npz, or `digits` (scikit-learn's).", show_default=False)
]
ExtractorName = Annotated[
    str, typer.Option(help="Feature extractor: random-vgg16-SIZE, inception, vgg16 (both need --weights), discriminator, module:….")
]
ExtractorWeights = Annotated[str | None, typer.Option(help="Weights of the extractor: a file, or https://…#sha256=….", show_default=False)]
NumbersFolder = Annotated[Path | None, typer.Option(help="Folder for numbers and figures; must not exist yet.", show_default=False)]


def load(source: Source, device: str, tracking_uri: str | None = None) -> Generator:
    """The generator that a source stands for, on the device that was asked for."""
    return load_both(source, device, tracking_uri)[0]


def load_both(source: Source, device: str, tracking_uri: str | None = None) -> tuple[Generator, Discriminator | None]:
    """The generator that a source stands for, and the discriminator that is stored beside it, if there is one."""
    from qualitygate.generators.base import Generator

    loaded = source.load(chosen_device(device), tracking_uri)
    return (loaded, None) if isinstance(loaded, Generator) else (loaded.generator, loaded.discriminator)


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


def load_policy_or_none(path: Path | None) -> Policy | None:
    """The policy of a file, or None where none was given."""
    from qualitygate.policy.model import load_policy

    return None if path is None else load_policy(path)
