"""What is asked for when a set is gated. Nothing heavy is imported here: the command line shows it in its help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field

from qualitygate.errors import InputError
from qualitygate.records.images import ImageEncoding, ImageFormat
from qualitygate.requests import GeneratorRequest, WithPolicy, WithTracking

SHARD_SIZE = 2048
"""Ids in a shard."""
QUALITY = 95
"""Of WebP and JPEG, where nothing else is asked for."""


class Form(StrEnum):
    WEBDATASET = "webdataset"
    PARQUET = "parquet"
    FOLDER = "folder"


class GateRequest(GeneratorRequest, WithPolicy, WithTracking):
    """Which samples are gated by which profile, how they are written, and by whom."""

    profile: Path = Field(description="Profile made by `calibrate`.")
    out: str = Field(description="Folder for the gated set, or s3://bucket/path; must not exist yet. A set begun there goes on.")
    ids: str | None = Field(None, description="Sample ids: START:STOP, or how many from 0.")
    seed: int = Field(1, ge=0, description="Seed of the samples; any but the calibration's.")
    latents: Path | None = Field(None, description="Your own latents instead of ids: .npz with z or w, and labels.")
    curvature: int = Field(0, ge=0, description="Exact CLA for so many samples with the lowest and the highest score; not with --shards.")
    images: bool = Field(True, description="Write the images of accepted and corrected samples.")
    image_format: ImageFormat = Field(ImageFormat.PNG, description="Format of the images: png loses nothing; webp and jpeg are smaller.")
    image_quality: int | None = Field(None, ge=1, le=100, description=f"Quality of webp and jpeg; default: {QUALITY}.")
    png_level: int | None = Field(None, ge=0, le=9, description="Compression of png: 1 (default) is fast, 6 and 9 are slower and smaller.")
    shards: Form | None = Field(None, description="Write shards, at any scale: webdataset, parquet or folder.")
    accepted: int | None = Field(None, ge=1, description="So many images, accepted or corrected, instead of --ids.")
    shard_size: int = Field(SHARD_SIZE, ge=1, description="Ids in a shard: what is made anew after an interruption is at most that.")
    workers: int | None = Field(None, ge=1, description="Processes; default: one for each GPU with --shards, else one.")
    cluster: Literal["ray"] | None = Field(None, description="Where the workers are, if not here.")

    def chosen_encoding(self) -> ImageEncoding:
        """How the images are written. `InputError` for a setting that the format does not have, or where no images are written."""
        is_png = self.image_format == ImageFormat.PNG
        if not self.images and not (is_png and self.image_quality is None and self.png_level is None):
            raise InputError("No images are written", "--no-images with options of their format", "one of both")
        if is_png and self.image_quality is not None:
            remedy = "choose another --image-format, or --png-level 0 to 9 for how far png is compressed"
            raise InputError(
                "--image-quality cannot be used here", f"{self.image_quality} with png, which loses nothing", "webp or jpeg", remedy
            )
        if is_png:
            return ImageEncoding() if self.png_level is None else ImageEncoding(level=self.png_level)
        if self.png_level is not None:
            remedy = "leave it out, or say --image-quality 1 to 100"
            raise InputError("--png-level cannot be used here", f"{self.png_level} with {self.image_format}", "png", remedy)
        return ImageEncoding(format=self.image_format, level=None, quality=self.image_quality or QUALITY)

    def chosen_ids(self) -> range | None:
        """The ids that are asked for; None where latents or a number of images stand in their place. `InputError` if that is not clear."""
        needed = "START:STOP or COUNT, for example --ids 0:1000"
        options = {"--ids": self.ids, "--accepted": self.accepted, "--latents": self.latents}
        given = [name for name, value in options.items() if value is not None]
        if len(given) != 1:
            raise InputError(
                "Say which samples to gate", f"both {' and '.join(given)}" if given else f"neither {' nor '.join(options)}", needed
            )
        if self.ids is None:
            return None
        start, _, stop = self.ids.rpartition(":")
        if not (start or "0").isdigit() or not stop.isdigit() or int(start or 0) >= int(stop):
            raise InputError("These are no sample ids", repr(self.ids), needed)
        return range(int(start or 0), int(stop))
