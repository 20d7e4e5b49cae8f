"""Everything that outlives a run, as it lies on disk; what several records carry stands here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

GenerationPrecision = Literal["float32", "tf32", "bfloat16", "float16"]
"""Numbers in which images are made. ``float32``: full float32. ``tf32``: products in TensorFloat32 on a GPU that has it; the same as
float32 on the CPU. ``bfloat16``, ``float16``: weights and activations in these, after what comes before the first layer (the mapping),
which is in float32 always."""


class Record(BaseModel):
    """Base of all that is written down: frozen, unknown keys are errors, and NaN stays NaN through JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


@dataclass(frozen=True)
class Interval:
    """A number and where the true one most likely lies, at 95 % where nothing else is said."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


class CheckpointOrigin(Record):
    """Which checkpoint something is about."""

    checkpoint: str
    checkpoint_sha256: str
    family: str
    precision: GenerationPrecision = "float32"


class SoftwareOrigin(Record):
    """By which software, and on what, something was made."""

    package_version: str
    torch_version: str
    device: str


class Provenance(SoftwareOrigin, CheckpointOrigin):
    """Enough, with seed and id, to make the same image again and to know by which rules it was judged."""

    profile_id: str
    policy_hash: str
    suite_hash: str
    seed: int | None
    latents: str | None = None
    """SHA-256 of the latents file, where the latents were the user's own."""
    micro_batch: int = 64  # all that older records know
    """Samples in one pass of the generator."""


def canonical_hash(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
