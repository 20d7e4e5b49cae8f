"""How often a check passes, fails and stays open, against a naive threshold on means: simulated regressions of known size.

Each repetition draws the score of a baseline for N latents, and a candidate's that is worse by a known share and correlated with it as
the same latents make it. The margin is 5 %. *Wrong* is a pass beyond the margin, or a failure within it.

    python benchmarks/check_power.py --repetitions 200
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from qualitygate.metrics.compare import compare, tail_of
from qualitygate.metrics.estimate import Resampling, mean
from qualitygate.policy.model import CheckRule, Margin
from qualitygate.records.check import RuleState

MARGIN = 0.05
RULE = CheckRule(id="score", metric="low_rate_0.1/q0.9", worse_by=Margin(relative=MARGIN))


def scores(random: np.random.Generator, count: int, worse: float, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Skewed positive scores of mean 10, the candidate's ``1 + worse`` times as high; sums of gammas, so that the correlation is exact."""
    shared = random.gamma(4.0 * correlation, 1.0, count)
    own, other = random.gamma(4.0 * (1.0 - correlation), 1.0, (2, count))
    return 2.5 * (shared + own), 2.5 * (1.0 + worse) * (shared + other)


def checked(random: np.random.Generator, worse: float, correlation: float, samples: int, looks: int, rules: int) -> tuple[RuleState, int]:
    """The state after growing, and the samples it took."""
    tail = tail_of(0.05, rules, looks)
    base, candidate = scores(random, samples * 2 ** (looks - 1), worse, correlation)
    for look in range(looks):
        count = samples * 2**look
        ours, theirs = (mean(part[:count], Resampling.for_tail(tail, 1)) for part in (candidate, base))
        found = compare(RULE, ours, theirs, tail)
        if found.state is not RuleState.INCONCLUSIVE:
            break
    return found.state, count


def naive(random: np.random.Generator, worse: float, correlation: float, samples: int) -> RuleState:
    """Means against the margin, nothing else."""
    base, candidate = scores(random, samples, worse, correlation)
    return RuleState.FAILED if candidate.mean() > (1 + MARGIN) * base.mean() else RuleState.PASSED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--looks", type=int, default=3)
    parser.add_argument("--rules", type=int, default=1)
    given = parser.parse_args()
    print(f"margin {MARGIN:.0%}, {given.samples} samples, up to {given.looks} looks, {given.rules} rules, {given.repetitions} times\n")
    print("| worse by | correlation | passed | failed | inconclusive | wrong | samples | naive passed | naive wrong |")
    print("|---" * 9 + "|")
    for correlation in (0.5, 0.9):
        for worse in (0.0, 0.02, 0.04, 0.06, 0.1, 0.2):
            random = np.random.default_rng(round(1000 * (worse + correlation)))
            results = [checked(random, worse, correlation, given.samples, given.looks, given.rules) for _ in range(given.repetitions)]
            plain = Counter(naive(random, worse, correlation, given.samples) for _ in range(given.repetitions))
            wrong = RuleState.PASSED if worse > MARGIN else RuleState.FAILED
            counts, n = Counter(state for state, _ in results), given.repetitions
            shares = [counts[one] / n for one in (RuleState.PASSED, RuleState.FAILED, RuleState.INCONCLUSIVE, wrong)]
            cells = [
                f"{worse:.0%}",
                f"{correlation:g}",
                *(f"{one:.1%}" for one in shares),
                f"{np.mean([at for _, at in results]):.0f}",
                f"{plain[RuleState.PASSED] / n:.1%}",
                f"{plain[wrong] / n:.1%}",
            ]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
