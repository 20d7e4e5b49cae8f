"""Images for people to label: what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from qualitygate.requests import Flag, GeneratorRequest


class LabelRequest(GeneratorRequest):
    """Tasks of a checkpoint (``checkpoint`` and ``profile``), a second round (``corrected``), or answers (``read`` and ``tasks``)."""

    checkpoint: Annotated[str | None, Flag(argument=True)] = Field(  # type: ignore[assignment]
        None, description=GeneratorRequest.model_fields["checkpoint"].description
    )
    out: Path = Field(description="Folder for the tasks, or file for what was answered.")
    profile: Path | None = Field(None, description="Profile made by `calibrate`.")
    count: int = Field(300, ge=1, description="Images to label.")
    random_share: float = Field(0.3, ge=0.0, le=1.0, description="Share of random ones; the rest are extremes.")
    score: str | None = Field(None, description="Score of the extremes; default: the first rule's.")
    read: Path | None = Field(None, description="Answers: CSV, Label Studio's JSON, or a folder with artifact/ and normal/.")
    tasks: Path | None = Field(None, description="With --read: the folder of tasks that they answer.")
    corrected: Path | None = Field(
        None, description="Instead: a second, blind round over the images that `corrections --keep` wrote to this folder."
    )
