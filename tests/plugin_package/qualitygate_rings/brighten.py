"""A correction: the activations of the layers are multiplied, all by the same."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field

from qualitygate.corrections.method import Method, same_for_all
from qualitygate.policy.corrections import Correction


class Brighten(Correction):
    """``h ← (1 + amount) · h``."""

    strength_field = "amounts"

    method: Literal["brighten"] = "brighten"
    amounts: tuple[float, ...] = Field((0.5, 1.0), min_length=1, description="strengths, rising, in (0, 1]")

    def edited(self, preset: tuple[int, ...], stop: int | None) -> tuple[int, ...]:
        return preset[:1]

    def ready(self, generator: Any, profile: Any, layers: tuple[int, ...]) -> Method:
        return same_for_all({amount: {layer: partial(torch.mul, other=1.0 + amount) for layer in layers} for amount in self.amounts})
