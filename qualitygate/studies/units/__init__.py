"""Which units of a checkpoint draw what is wrong: what is asked for."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from qualitygate.requests import GeneratorRequest, WithExtractor, WithReal, WithTracking


class UnitsRequest(GeneratorRequest, WithReal, WithExtractor, WithTracking):
    """Whose units are scored, by which samples, and how much is spent."""

    profile: Path = Field(description="Profile made by `calibrate`.")
    labels: Path | None = Field(
        None, description="Labels: CSV, Label Studio's JSON, or a folder with artifact/ and normal/; default: extremes of --score stand in."
    )
    label_seed: int | None = Field(None, description="Seed of the labelled samples; default: the calibration's.")
    sources: str | None = Field(
        None,
        description="Unit scores, with commas: cla, low_rate, defective, frechet, contribution, a plug-in's; default: all there can be.",
    )
    score: str | None = Field(None, description="Score whose extremes stand in; default: the first rule's.")
    extractor: str = Field("random-vgg16-64", description=WithExtractor.model_fields["extractor"].description)
    samples: int = Field(2000, ge=2, description="Samples for thresholds, FID and top images.")
    group: int = Field(200, ge=1, description="Samples of each group that stands in for labels.")
    images: int = Field(100, ge=2, description="Images of a unit whose FID is measured.")
    curvature: int = Field(16, ge=1, description="Artifacts with exact CLA.")
    top: int = Field(10, ge=1, description="Units of each layer to show.")
    out: Path | None = Field(None, description="Folder for scores and sheets; must not exist yet.")
    track: bool = Field(True, description="Log to MLflow; with --out only.")
