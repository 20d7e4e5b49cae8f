"""Evidence where there is no other: a defect planted into the same generator, of which the truth is known."""

from __future__ import annotations

from dataclasses import replace

from qualitygate import names
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.policy.corrections import Limit
from qualitygate.policy.model import Calibration, Detection, Policy, Rule
from qualitygate.records.evidence import Kind
from qualitygate.records.gate import Verdict
from qualitygate.studies.validate.findings import Judged
from qualitygate.studies.validate.scores import score_table
from qualitygate.testing.planted import Defect, plant

PLANTED_SHARE = 0.05
"""Share of the samples that the planted defect shows in."""
_RATES = 5000  # samples for the activation rates of the planted generator
_SCORES = 500


def planted_evidence(generator: Generator, profile: Profile, latents: Latents, seed: int, reporter: Reporter) -> Judged:
    """The same samples of the same generator with a defect in it, calibrated anew.

    Args:
        generator: the generator; stays as it is.
        profile: its own.
        latents: the samples.
        seed: of what is planted.
        reporter: shows progress.
    """
    layers = detection_layers(profile.policy, profile.info.chain)
    defect = Defect(layer=layers[len(layers) // 2], units=2, share=PLANTED_SHARE, edge="soft")
    planted = plant(generator, defect, seed)
    learned = calibrate(planted.generator, _small_policy(profile), sampling=profile.info.sampling, reporter=reporter)
    learned = replace(learned, policy=profile.policy)
    table = score_table(planted.generator, learned, latents, 0, reporter)
    what = (
        f"a defect of {defect.units} units from layer {defect.layer}, planted into {PLANTED_SHARE:.0%} of the samples: it shows "
        "what a score can find, not what is wrong here"
    )
    level = planted.truth.level(latents).double().numpy()
    return Judged(Kind.PLANTED, what, level, planted.truth.defective(latents).numpy(), table)


def _small_policy(profile: Profile) -> Policy:
    """Counts at the profile's layers and rates, from fewer samples."""
    info = profile.info
    calibration = Calibration(rate_samples=min(_RATES, info.calibration.rate_samples), score_samples=_SCORES, seed=info.calibration.seed)
    rule = Rule(id="any", score=names.never_seen(), limit=Limit(quantile=0.9), action=Verdict.REJECT)
    detection = Detection(layers=info.layers, rates=info.rates)
    return Policy(detection=detection, calibration=calibration, correction=None, rules=(rule,))
