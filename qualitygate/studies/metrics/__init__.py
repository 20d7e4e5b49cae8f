"""How good a checkpoint's images are, as a whole and in groups, and whether a score ranks them: what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from qualitygate.requests import Flag, GeneratorRequest, WithExtractor, WithPolicy, WithReal, WithTracking


class MetricsRequest(GeneratorRequest, WithPolicy, WithReal, WithExtractor, WithTracking):
    """What to measure of a checkpoint, with what, and where the numbers go."""

    profile: Path | None = Field(None, description="Profile made by `calibrate`: adds the gate's groups and its scores.")
    gated: Path | None = Field(
        None, description="A gated set: its samples, judged as it was, in place of --profile, --policy, --seed and --samples."
    )
    distance: str = Field(
        "random-vgg16-32", description="Distance of path lengths: random-vgg16-SIZE, lpips (needs --distance-weights), none."
    )
    distance_weights: str | None = Field(None, description="Weights of the distance: a file, or https://…#sha256=….")
    samples: int = Field(5000, ge=2, description="Images to make.")
    seed: int = Field(1, ge=0, description="Seed of the samples; any but the calibration's.")
    score: str | None = Field(
        None, description="Score that ranks the samples, e.g. low_rate_0.1 or cla/layer_1; default: the first rule's."
    )
    group_share: float = Field(0.1, description="Share of the samples in the lowest and in the highest group.")
    path_samples: int = Field(100, ge=0, description="Samples of each group whose path lengths are measured.")
    path: tuple[str, ...] = Field(
        (), description="Another path length of the whole set, repeatable: ppl_z_end, ppl_z_full, ppl_w_end, ppl_w_full."
    )
    fid_infinity: bool = Field(False, description="FID extrapolated to infinitely many samples, too.")
    out: Path | None = Field(None, description="Folder for numbers and figures; must not exist yet.")
    track: Annotated[bool, Flag("--track/--no-track")] = Field(False, description="Log to MLflow; needs --out.")
