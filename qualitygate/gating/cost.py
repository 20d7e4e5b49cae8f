"""What screening costs beside generation, measured: whether CLA belongs in a checkpoint's default policy."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from qualitygate import names
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import MICRO_BATCH, scored_pass
from qualitygate.policy.model import Policy, Rule, default_policy
from qualitygate.policy.parts import Limit
from qualitygate.scores.local_activation import DIVISIONS, local_activation
from qualitygate.scores.screening import TYPICAL_PASSES

AFFORDABLE = 0.1
"""Most that screening may add to the time of bare generation to be part of a default policy."""
_CURVATURE_SAMPLES = 1_000
_SEED = 0


def screening_share(generator: Generator, layer: int) -> float:
    """Seconds that screening a sample takes, as a share of those that generating it takes; measured on the generator's device."""
    latents = sample_latents(generator, range(MICRO_BATCH), _SEED)
    axes = range(min(8, generator.latent_size))
    with scored_pass():
        generating = _seconds(generator, lambda: generator(latents)) / len(latents)
        few = latents[:4]
        walking = _seconds(generator, lambda: local_activation(generator, few, [layer], axes=axes))
    a_pass = walking / (len(few) * len(axes) * DIVISIONS)
    return TYPICAL_PASSES * a_pass / generating


def affordable_policy(generator: Generator) -> Policy:
    """The family's default policy, with a rule on screened CLA where screening is affordable."""
    policy = default_policy(generator.family)
    layer = generator.presets.curvature[0]
    if screening_share(generator, layer) > AFFORDABLE:
        return policy
    return with_curvature(policy, layer)


def with_curvature(policy: Policy, layer: int, quantile: float = 0.9) -> Policy:
    """The policy with CLA of a layer screened too: what lies over the quantile is corrected."""
    rule = Rule(id="cla", score=names.cla(layer), limit=Limit(quantile=quantile))
    document = policy.model_dump()
    document["rules"] = [*document["rules"], rule.model_dump()]
    document["calibration"]["curvature_samples"] = _CURVATURE_SAMPLES
    return Policy.model_validate(document)


def _seconds(generator: Generator, work: Callable[[], object]) -> float:
    """Of one run, after one that warms up."""
    taken = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        if generator.device.type == "cuda":
            torch.cuda.synchronize(generator.device)
        taken = time.perf_counter() - start
    return taken
