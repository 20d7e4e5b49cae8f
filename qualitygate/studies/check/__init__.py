"""Pass or fail a new checkpoint: what is asked for."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from qualitygate.requests import GeneratorRequest, WithPolicy, WithReal, WithTracking


class CheckRequest(GeneratorRequest, WithPolicy, WithReal, WithTracking):
    """What to check, what to hold it against, and what to do with the verdict."""

    baseline: str | None = Field(None, description="What to hold it against: a file, models:/name@champion, or a profile's folder.")
    suite: Path | None = Field(None, description="Hand-written expectations, in a suite.json.")
    out: Path | None = Field(None, description="Folder for record and reports; must not exist yet.")
    extractor: str | None = Field(
        None, description="In place of the policy's check.extractor; only here may it be module:…, as that runs code."
    )
    distance: str | None = Field(None, description="In place of the policy's check.distance.")
    weights: str | None = Field(None, description="Weights of the extractor.")
    distance_weights: str | None = Field(None, description="Weights of the distance.")
    model: str | None = Field(None, description="Registered model to upload a candidate file to.")
    tag_only: bool = Field(False, description="Write the verdict onto the registered version, move no alias.")
    promote: str | None = Field(None, description="Alias that a pass moves here, e.g. champion.")
    exit_zero: bool = Field(False, description="Exit with 0 whatever the verdict.")
    error_on_warning: bool = Field(False, description="Warnings count like critical rules.")
    dry_run: bool = Field(False, description="Print the rules as they would be applied, and stop.")
