"""Quality gate for image generators: accept, correct or reject each image by looking inside the generator.

Everything below is imported when it is first used, so that ``import qualitygate`` loads neither torch nor mlflow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load_generator": "qualitygate.checkpoints.load",
    "load_checkpoint": "qualitygate.checkpoints.load",
    "save_generator": "qualitygate.checkpoints.save",
    "sample_latents": "qualitygate.generators.base",
    "load_latents": "qualitygate.latents",
    "Latents": "qualitygate.latents",
    "Sampling": "qualitygate.latents",
    "activation_rates": "qualitygate.scores.low_rate",
    "ActivationRates": "qualitygate.scores.low_rate",
    "low_rate_counts": "qualitygate.scores.low_rate",
    "low_rate_heatmap": "qualitygate.scores.low_rate",
    "local_activation": "qualitygate.scores.local_activation",
    "LocalActivation": "qualitygate.scores.local_activation",
    "sequential_ablation": "qualitygate.corrections.ablation",
    "sequential_correction": "qualitygate.corrections.attenuation",
    "local_region_correction": "qualitygate.corrections.local_region",
    "Policy": "qualitygate.policy.model",
    "load_policy": "qualitygate.policy.model",
    "default_policy": "qualitygate.gating.calibrate",
    "calibrate": "qualitygate.gating.calibrate",
    "Profile": "qualitygate.gating.profile",
    "load_profile": "qualitygate.gating.profile",
    "gate": "qualitygate.gating.stage",
    "TrainingWatch": "qualitygate.callbacks",
    "lightning_callback": "qualitygate.callbacks",
    "QualityGateError": "qualitygate.errors",
    "Verdict": "qualitygate.records.gate",
    "SampleRecord": "qualitygate.records.gate",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from qualitygate.callbacks import TrainingWatch, lightning_callback
    from qualitygate.checkpoints.load import load_checkpoint, load_generator
    from qualitygate.checkpoints.save import save_generator
    from qualitygate.corrections.ablation import sequential_ablation
    from qualitygate.corrections.attenuation import sequential_correction
    from qualitygate.corrections.local_region import local_region_correction
    from qualitygate.errors import QualityGateError
    from qualitygate.gating.calibrate import calibrate, default_policy
    from qualitygate.gating.profile import Profile, load_profile
    from qualitygate.gating.stage import gate
    from qualitygate.generators.base import sample_latents
    from qualitygate.latents import Latents, Sampling, load_latents
    from qualitygate.policy.model import Policy, load_policy
    from qualitygate.records.gate import SampleRecord, Verdict
    from qualitygate.scores.local_activation import LocalActivation, local_activation
    from qualitygate.scores.low_rate import ActivationRates, activation_rates, low_rate_counts, low_rate_heatmap


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
