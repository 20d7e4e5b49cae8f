"""Quality gate for image generators: accept, correct or reject each image by looking inside the generator.

Everything below is imported when it is first used, so that ``import qualitygate`` loads neither torch nor mlflow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "checkpoints.load": ("load_generator", "load_checkpoint"),
    "checkpoints.save": ("save_generator",),
    "generators.base": ("sample_latents",),
    "latents": ("load_latents", "Latents", "Sampling"),
    "scores.low_rate": ("activation_rates", "ActivationRates", "low_rate_counts", "low_rate_heatmap"),
    "scores.local_activation": ("local_activation", "LocalActivation"),
    "corrections.ablation": ("sequential_ablation",),
    "corrections.attenuation": ("sequential_correction",),
    "corrections.local_region": ("local_region_correction",),
    "policy.model": ("Policy", "load_policy"),
    "gating.calibrate": ("default_policy", "calibrate"),
    "gating.profile": ("Profile", "load_profile"),
    "gating.stage": ("gate",),
    "callbacks": ("TrainingWatch", "lightning_callback"),
    "errors": ("QualityGateError",),
    "records.gate": ("Verdict", "SampleRecord"),
}
_HOME = {name: f"qualitygate.{module}" for module, names in _EXPORTS.items() for name in names}

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
