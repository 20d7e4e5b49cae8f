"""What other numbers than float32 change: scores, verdicts and images of the face generator.

    python benchmarks/precision.py [--samples 128] [--device cpu] [--precision bfloat16 …]

Prints a table. Scores are those of one and the same latents, against the rates of float32, in standard deviations of float32's; verdicts
are those of the default policy, each precision by a profile of its own. On the CPU ``tf32`` is float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from qualitygate.checkpoints.demonstration import face_generator
from qualitygate.checkpoints.load import load_generator
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.scoring import Scorer, add_totals, joined
from qualitygate.gating.stage import GatedBlock, GateStage
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.policy.model import Calibration, Policy
from qualitygate.records import GenerationPrecision
from qualitygate.scores.low_rate import ActivationRates

SEED = 1


@dataclass(frozen=True)
class Drift:
    """Of one precision from float32.

    Attributes:
        score_median, score_most: of the score that the policy's first rule goes by, in standard deviations.
        verdicts: share of the samples whose verdict is another one.
        grey: of an image's values, in steps of 1/255, root mean square over the images that both keep without a correction.
    """

    precision: str
    score_median: float
    score_most: float
    verdicts: float
    grey: float


def drifts(generator: Generator, policy: Policy, samples: int, precisions: tuple[GenerationPrecision, ...]) -> Iterator[Drift]:
    """What each precision changes in samples 0 … N − 1 of a seed."""
    profile = calibrate(generator, policy)
    exact, scores = _gated(generator, policy, samples), _scores(generator, profile.rates, policy, samples)
    for precision in precisions:
        lower = generator.at(precision)
        moved = np.abs(_scores(lower, profile.rates, policy, samples) - scores) / scores.std()
        blocks = _gated(lower, policy, samples)
        other = [float((a.decisions.verdict != b.decisions.verdict).mean()) for a, b in zip(exact, blocks, strict=True)]
        errors = [
            np.square(127.5 * (a.images[row] - b.images[row])).mean()
            for a, b in zip(exact, blocks, strict=True)
            for row in range(len(a.latents))
            if a.decisions.verdict[row] == b.decisions.verdict[row] == "accept"
        ]
        yield Drift(precision, float(np.median(moved)), float(moved.max()), float(np.mean(other)), float(np.sqrt(np.mean(errors))))


def _scores(generator: Generator, rates: ActivationRates, policy: Policy, samples: int) -> np.ndarray:
    layers, at = generator.presets.low_rate, policy.detection.rates
    score = Scorer(generator, rates.to(generator.device), at, layers)
    columns = joined(found for _, found, _ in score.over(sample_latents(generator, range(samples), SEED)))
    add_totals(columns, at, layers)
    return columns[policy.rules[0].score]


def _gated(generator: Generator, policy: Policy, samples: int) -> list[GatedBlock]:
    return [*GateStage(generator, calibrate(generator, policy), policy, seed=SEED).blocks(range(samples))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", choices=get_args(GenerationPrecision), default=["bfloat16", "float16"])
    parser.add_argument("--wheel", type=Path, help="of the face generator; fetched or found in the cache without it")
    options = parser.parse_args()
    generator = load_generator(face_generator(options.wheel), options.device)
    policy = Policy(calibration=Calibration(rate_samples=2 * options.samples, score_samples=2 * options.samples))
    print("| precision | score, median | score, most | other verdicts | image |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for one in drifts(generator, policy, options.samples, tuple(options.precision)):
        print(f"| {one.precision} | {one.score_median:.4f} σ | {one.score_most:.2f} σ | {one.verdicts:.2%} | {one.grey:.2f}/255 |")


if __name__ == "__main__":
    main()
