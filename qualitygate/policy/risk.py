"""One defect risk a sample, joined from its scores.

Each part is turned into how rare it is among the calibration's samples, ``p = (1 + samples at least as high) / (1 + samples)``, and the
risk is the weighted sum of ``−ln p`` (Fisher's way of joining tests, with all weights 1; its chi-squared law is not used, since the parts
depend on each other: limits on the risk are quantiles like any other). The rule was fixed before any result was looked at. A sum of
logarithms answers to a single part that is extreme as well as to several that are merely high.

Where some samples are known to be broken, `fit_weights` finds weights, none of them negative: more of a score never lowers the risk.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qualitygate import names
from qualitygate.errors import InputError, PolicyError


class Risk:
    """The joined risk, ready to be computed.

    Args:
        reference: the calibration's scores by part, NaN where one was not computed.
        weights: weight of each part, at least 0; one of them positive.

    Raises:
        PolicyError: a part that the calibration does not hold.
    """

    def __init__(self, reference: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> None:
        if missing := [part for part in weights if part not in reference]:
            raise PolicyError(
                "The risk has a part that was not calibrated",
                ", ".join(missing),
                f"some of {', '.join(sorted(reference))}",
                "calibrate with a policy that scores it, or leave it out of risk.weights",
            )
        self.weights = {part: weight for part, weight in weights.items() if weight > 0}
        self._reference = {part: np.sort(reference[part][~np.isnan(reference[part])]) for part in self.weights}

    def surprise(self, part: str, values: np.ndarray) -> np.ndarray:
        """``−ln p`` of one part, float64 (N,) in [0, ln(1 + samples)]; NaN where the value is."""
        known = self._reference[part]
        as_high = len(known) - np.searchsorted(known, values, side="left")
        return np.where(np.isnan(values), np.nan, np.log1p(len(known)) - np.log1p(as_high))

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Risk of each sample, float64 (N,), higher = worse; NaN where a part is.

        Raises:
            PolicyError: a part is missing from the columns.
        """
        if missing := [part for part in self.weights if part not in columns]:
            raise PolicyError("The risk cannot be joined", f"no {', '.join(missing)}", "records that hold every part", "gate again")
        return np.sum([weight * self.surprise(part, columns[part]) for part, weight in self.weights.items()], axis=0)


def default_weights(rate: float, layers: tuple[int, ...], curvature: tuple[int, ...]) -> dict[str, float]:
    """Every part of what the gate measures counts the same: low-rate neurons of each layer, never-seen neurons, CLA of each layer."""
    parts = [*(names.low_rate(rate, layer) for layer in layers), names.never_seen(), *map(names.cla, curvature)]
    return dict.fromkeys(parts, 1.0)


def fit_weights(risk: Risk, columns: Mapping[str, np.ndarray], broken: np.ndarray, penalty: float = 1.0) -> dict[str, float]:
    """Weights under which the risk tells broken samples from fine ones best: logistic regression on the parts, bounded below by 0.

    Args:
        risk: any risk over the parts in question.
        columns: scores of N samples.
        broken: bool (N,).
        penalty: of the squared weights, as if so many samples had none of the parts.

    Returns:
        weight of each part, at least 0, scaled so that they sum to the number of parts.

    Raises:
        InputError: all samples are of one kind, or no part tells them apart.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    broken = np.asarray(broken, dtype=bool)
    parts = list(risk.weights)
    inputs = np.column_stack([risk.surprise(part, columns[part]) for part in parts])
    if broken.all() or not broken.any():
        raise InputError("Weights need both kinds of samples", f"{int(broken.sum())} broken of {len(broken)}", "some of each")
    sign = np.where(broken, 1.0, -1.0)

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (inputs @ at[1:] + at[0])
        wrong = -sign * expit(-margin)
        value = np.logaddexp(0.0, -margin).sum() + 0.5 * penalty * (at[1:] ** 2).sum()
        return float(value), np.concatenate([[wrong.sum()], inputs.T @ wrong + penalty * at[1:]])

    bounds = [(None, None), *[(0.0, None)] * len(parts)]
    found = minimize(loss, np.zeros(len(parts) + 1), jac=True, method="L-BFGS-B", bounds=bounds).x[1:]
    if not found.sum() > 0:
        raise InputError(
            "No part tells broken samples from fine ones",
            "all weights 0",
            "a part that is higher for broken samples",
            "on this checkpoint these scores say nothing: do not gate by them",
        )
    return {part: float(weight) for part, weight in zip(parts, found / found.mean(), strict=True)}
