"""Verdicts of a gated set under another policy, from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qualitygate import names
from qualitygate.errors import ProfileError, Reason
from qualitygate.gating.profile import Chain, detection_layers, load_profile
from qualitygate.gating.scoring import add_totals
from qualitygate.gating.validated import check_validated
from qualitygate.policy.decide import Limits, decide
from qualitygate.policy.model import Policy, load_policy
from qualitygate.policy.scores import parse
from qualitygate.produce.gated_set import POLICY, PROFILE, SAMPLES, read_samples
from qualitygate.records.gate import Verdict


@dataclass(frozen=True)
class Change:
    """What another policy makes of the same records.

    Attributes:
        rows: id, verdict, strength, reasons and borderline under the new policy.
        before: verdicts under the old one (N,).
        limits: the new limits.
    """

    rows: dict[str, Any]
    before: np.ndarray
    limits: Limits

    def document(self) -> dict[str, Any]:
        """Counts, yields and limits as plain data."""
        after = np.asarray(self.rows[names.VERDICT])
        had_image = self.before == Verdict.ACCEPT
        needs_image = (after != Verdict.REJECT) & ~(had_image & (after == Verdict.ACCEPT)) & (after != self.before)
        untried = np.array([str(Reason.CORRECTION_NOT_TRIED) in reasons for reasons in self.rows[names.REASONS]])
        return {
            "samples": len(after),
            "before": {str(one): int((self.before == one).sum()) for one in Verdict},
            "after": {str(one): int((after == one).sum()) for one in Verdict},
            "yield_before": float((self.before != Verdict.REJECT).mean()),
            "yield_after": float((after != Verdict.REJECT).mean()),
            "changed": int((after != self.before).sum()),
            "to_gate_again": int((untried | needs_image).sum()),
            "limits": [limit.model_dump(mode="json") for limit in (*self.limits.rules, *self.limits.recheck_limits.values())],
        }


def redecide(gated: str | Path, policy_file: str | Path, profile_folder: str | Path | None = None) -> Change:
    """Decide a gated set again.

    Args:
        gated: the gated set's folder, or its ``samples.parquet``.
        policy_file: the other policy.
        profile_folder: the profile; by default the copy in the gated set.

    Raises:
        ProfileError: no profile, or not the one that the set was gated with.
        PolicyError: the policy cannot be read, or needs scores that the records do not hold.
    """
    table = Path(gated) / SAMPLES if Path(gated).is_dir() else Path(gated)
    columns, provenance = read_samples(table)
    policy = load_policy(policy_file)
    profile = load_profile(profile_folder or table.parent / PROFILE)
    if profile.info.profile_id != provenance.profile_id:
        raise ProfileError(
            "The records were made with another profile",
            f"profile {profile.info.profile_id[:12]}",
            f"profile {provenance.profile_id[:12]}",
            "give the right one with --profile",
        )
    check_validated(profile, policy)
    limits = profile.limits(policy)
    scores = {name: column for name, column in columns.items() if column.dtype.kind == "f" and name not in _NOT_SCORES}
    if not _same_correction(table.parent / POLICY, policy, profile.info.chain):
        scores = {name: column for name, column in scores.items() if not names.is_trial(name)}
    _sum_again(scores, policy.detection.rates, detection_layers(policy, profile.info.chain))
    decisions = decide(limits, scores)
    rows = {
        names.ID: columns[names.ID],
        names.VERDICT: [str(verdict) for verdict in decisions.verdict],
        names.STRENGTH: [None if np.isnan(strength) else float(strength) for strength in decisions.strength],
        names.BORDERLINE: decisions.borderline,
        names.REASONS: [list(map(str, reasons)) for reasons in decisions.reasons],
    }
    return Change(rows, columns[names.VERDICT].astype(str), limits)


_NOT_SCORES = (names.STRENGTH, names.MOVED)


def _sum_again(scores: dict[str, np.ndarray], at: Sequence[float], layers: tuple[int, ...]) -> None:
    """The sums over the layers that this policy counts, in place of those that the set was gated with. There is none over a layer
    that the records do not hold."""
    for total in [name for name in scores if "/" not in name and _is_count(name)]:
        del scores[total]
    if all(names.never_seen(layer) in scores for layer in layers):
        known = [r for r in at if all(names.low_rate(r, layer) in scores for layer in layers)]
        add_totals(scores, known, layers)


def _same_correction(gated_policy: Path, policy: Policy, chain: Chain) -> bool:
    """Whether what was tried is what this policy would try: records name method and strength alone. Without the policy that the set was
    gated with, they are taken at their word."""
    before = load_policy(gated_policy).correction if gated_policy.is_file() else None
    after = policy.correction
    if before is None or after is None:
        return True
    layers = [chain.checked(one.edited(chain.preset, chain.stop)) for one in (before, after)]
    return before.edit == after.edit and layers[0] == layers[1]


def _is_count(name: str) -> bool:
    found = parse(name)
    return found is not None and found.score.read_by is not None
