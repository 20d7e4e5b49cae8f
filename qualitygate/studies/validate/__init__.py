"""What a validation is asked for: which checkpoint, which evidence, and how many samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from qualitygate.requests import Flag, GeneratorRequest, Request, WithExtractor, WithReal


class ValidationSizes(Request):
    """How much is made and scored."""

    planted: Annotated[bool | None, Flag("--planted/--no-planted")] = Field(
        None, description="Plant a defect too; default: where there are neither labels nor real images."
    )
    samples: int = Field(2000, ge=40, description="Images to make: half choose, half are reported on.")
    curvature: int = Field(200, ge=0, description="Samples with exact CLA.")
    class_samples: int = Field(2000, ge=10, description="Samples for activation rates by class.")
    seed: int = Field(1, ge=0, description="Seed of the samples; any but the calibration's.")


class ValidateRequest(ValidationSizes, GeneratorRequest, WithReal, WithExtractor):
    """Which checkpoint is validated, and with what."""

    profile: Path = Field(description="Profile made by `calibrate`; the evidence is written into it.")
    labels: Path | None = Field(None, description="What people said: CSV, Label Studio's JSON, or a folder with artifact/ and normal/.")
    label_seed: int | None = Field(None, description="Seed of the labelled samples; default: the calibration's.")
    real_classes: Path | None = Field(
        None, description="Class of each real image, in their order: .npy of whole numbers. `digits` bring theirs."
    )
    out: Path | None = Field(None, description="Folder for numbers and figures; must not exist yet.")
    write: bool = Field(True, description="Write the evidence into the profile.")
