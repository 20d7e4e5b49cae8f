"""Scores held against evidence: labels, real images, a planted defect, the discriminator. Findings on one half of the samples, choices on
the other, and a policy made of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml

from qualitygate import names
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.metrics.estimate import auc, rank_correlation
from qualitygate.policy.corrections import Limit
from qualitygate.policy.decide import Risk
from qualitygate.policy.model import Calibration, Detection, Policy, Rule
from qualitygate.policy.scores import cla_layer
from qualitygate.records.gate import Verdict
from qualitygate.records.validation import FEWEST, EvidenceKind, EvidenceSource, Finding, RarityFinding, ScoreSetting, Sight
from qualitygate.studies.metrics.groups import SHARE
from qualitygate.studies.validate import ValidationSizes
from qualitygate.studies.validate.samples import ScoredSetting, ScoreTable, ValidationInputs, ValidationSamples, score_table
from qualitygate.testing.planted import Defect, plant

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares that are rejected, one after the other."""
CHOOSING, REPORTING = slice(0, None, 2), slice(1, None, 2)
"""Rows that choices are made by, and those that are reported on: ids are drawn at random anyway."""
_PLANTED_RATES, _PLANTED_SCORES = 5000, 500  # samples for the calibration of the planted generator


@dataclass(frozen=True)
class SampleEvidence:
    """What one kind of evidence says of N samples, beside their scores: which are bad, bool (N,), and how bad they are, float64 (N,), NaN
    where nothing is known. No policy can ask for the settings in ``more``; the caveat says what the numbers must not be taken for."""

    kind: EvidenceKind
    what: str
    badness: np.ndarray
    bad: np.ndarray
    table: ScoreTable
    more: tuple[ScoredSetting, ...] = ()
    caveat: str | None = None

    @property
    def source(self) -> EvidenceSource:
        return EvidenceSource(kind=self.kind, what=self.what, samples=int((~np.isnan(self.badness)).sum()), bad=int(self.bad.sum()))

    @property
    def enough(self) -> bool:
        """Whether both halves have bad and good samples."""
        return self._halves(self.badness) is not None

    def findings(self, seed: int) -> list[Finding]:
        """Every setting on this evidence."""
        found = (self.finding(*one, seed) for one in (*self.table.settings, *self.more))
        return [one for one in found if one is not None]

    def finding(self, setting: ScoreSetting, values: np.ndarray, seed: int) -> Finding | None:
        """One score on this evidence; None where too few samples have both."""
        if (halves := self._halves(values)) is None:
            return None
        choose, report = halves
        bad, score = self.bad[report], values[report]
        order, tenth = np.argsort(score, kind="stable"), max(1, round(SHARE * len(score)))
        return Finding(
            setting=setting,
            kind=self.kind,
            samples=len(report),
            bad=int(bad.sum()),
            chosen_by=None if setting.fitted else auc(values[choose], self.bad[choose], seed=seed),
            auc=auc(score, bad, seed=seed),
            correlation=rank_correlation(score, self.badness[report], seed=seed),
            bad_lowest=float(bad[order[:tenth]].mean()),
            bad_highest=float(bad[order[-tenth:]].mean()),
        )

    def _halves(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows that choose and rows that are reported on, where value and evidence are known; None if bad or good ones are too few."""
        known = ~np.isnan(values) & ~np.isnan(self.badness)
        choose, report = (np.arange(len(known))[half][known[half]] for half in (CHOOSING, REPORTING))
        fewest = min(count for rows in (choose, report) for count in (self.bad[rows].sum(), (~self.bad[rows]).sum()))
        return (choose, report) if fewest >= FEWEST else None


def collect_evidence(
    inputs: ValidationInputs, sizes: ValidationSizes, samples: ValidationSamples, reporter: Reporter
) -> Iterator[SampleEvidence]:
    """All evidence there is, the strongest first, whether or not there is enough of it."""
    table, by_class = samples.table, samples.by_class
    if inputs.labels is not None:
        info, labels = inputs.profile.info, inputs.labels
        seed = info.calibration.seed if inputs.label_seed is None else inputs.label_seed
        latents = sample_latents(inputs.generator, labels.ids, seed, sampling=info.sampling)
        own = score_table(inputs.generator, inputs.profile, latents, sizes.curvature, reporter)
        what, badness = f"samples called artifacts in {labels.source}", labels.artifact.astype(np.float64)
        caveat = "labels: if the labelled samples were chosen by a score, that score's numbers are those of the chosen ones"
        yield SampleEvidence(EvidenceKind.LABELS, what, badness, labels.artifact, own, caveat=caveat)
    measured = samples.measured
    if (real := measured.real) is not None:
        against = f"against {len(real.features):,} of {real.name}"
        what = f"the quarter of the samples with the lowest realism score {against}"
        if real.has_realism:
            yield _worst_quarter(EvidenceKind.REALISM, what, measured.realism, samples)
        what = f"samples outside of the real images' neighbourhoods {against}"
        yield SampleEvidence(EvidenceKind.PRECISION, what, 1.0 - measured.inside, measured.inside < 0.5, table, by_class)
    if sizes.planted or (sizes.planted is None and inputs.labels is None and inputs.real is None):
        yield _planted(inputs.generator, inputs.profile, samples.latents, sizes.seed, reporter)
    if (values := samples.measured.discriminator) is not None:
        what = "the quarter of the samples that the discriminator likes least (weak evidence)"
        yield _worst_quarter(EvidenceKind.DISCRIMINATOR, what, values, samples)


def _worst_quarter(kind: EvidenceKind, what: str, quality: np.ndarray, samples: ValidationSamples) -> SampleEvidence:
    """The quarter with the lowest quality is bad."""
    bad = quality <= np.nanquantile(quality, 0.25)
    return SampleEvidence(kind, what, -quality, bad, samples.table, samples.by_class)


def _planted(generator: Generator, profile: Profile, latents: Latents, seed: int, reporter: Reporter) -> SampleEvidence:
    """The same samples of the same generator with a defect in it, of which the truth is known, calibrated anew: counts at the profile's
    layers and rates, from fewer samples."""
    info, layers = profile.info, detection_layers(profile.policy, profile.info.chain)
    defect = Defect(layer=layers[len(layers) // 2], units=2, share=0.05, edge="soft")
    planted = plant(generator, defect, seed)
    rate_samples = min(_PLANTED_RATES, info.calibration.rate_samples)
    small = Policy(
        detection=Detection(layers=info.layers, rates=info.rates),
        calibration=Calibration(rate_samples=rate_samples, score_samples=_PLANTED_SCORES, seed=info.calibration.seed),
        correction=None,
        rules=(Rule(id="any", score=names.never_seen(), limit=Limit(quantile=0.9), action=Verdict.REJECT),),
    )
    learned = replace(calibrate(planted.generator, small, sampling=info.sampling, reporter=reporter), policy=profile.policy)
    table = score_table(planted.generator, learned, latents, 0, reporter)
    what = (
        f"a defect of {defect.units} units from layer {defect.layer}, planted into {defect.share:.0%} of the samples: it shows "
        "what a score can find, not what is wrong here"
    )
    level = planted.truth.level(latents).double().numpy()
    return SampleEvidence(EvidenceKind.PLANTED, what, level, planted.truth.defective(latents).numpy(), table)


def rarity_findings(samples: ValidationSamples, more: Sequence[ScoredSetting], seed: int) -> Iterator[RarityFinding]:
    """How every setting, and some more, go with rarity on the half that is reported on; none without real images, nor of a setting that too
    few samples in their neighbourhoods have."""
    if samples.measured.real is None:
        return
    rarity = samples.measured.rarity[REPORTING]
    for setting, values in (*samples.table.settings, *samples.by_class, *more):
        known = ~np.isnan(rarity) & ~np.isnan(score := values[REPORTING])
        if (count := int(known.sum())) >= 2 * FEWEST:
            correlation = rank_correlation(score[known], rarity[known], seed=seed)
            yield RarityFinding(setting=setting, samples=count, correlation=correlation)


class Choice:
    """What came out of all findings, by the strongest of the evidence: the best setting that a policy can ask for, the best against rates
    by class, and the joined risk with fitted weights; each None where there is none, or too few samples have a score."""

    def __init__(self, evidence: Sequence[SampleEvidence], profile: Profile, seed: int) -> None:
        order = list(EvidenceKind)
        self.main = min(evidence, key=lambda one: order.index(one.kind))
        found = [one for each in evidence for one in each.findings(seed)]
        self.best, self.by_class = (
            best_of(one for one in found if one.kind is self.main.kind and one.setting.by_class is by_class) for by_class in (False, True)
        )
        self.risk = fitted_risk(profile, self.main)
        self.fitted = None if self.risk is None else self.main.finding(*self.risk, seed)
        self.findings = tuple(found if self.fitted is None else [*found, self.fitted])

    @property
    def usable(self) -> Finding | None:
        """The best that is better than chance; None where the scores are blind."""
        return next((one for one in (self.best, self.fitted) if one is not None and one.sight is not Sight.BLIND), None)

    def advice(self, policy: Policy) -> str | None:
        """A policy's part that gates by it, YAML, with what it rests on in comments; None where nothing can be gated by."""
        chosen, fitted = self.usable, self.fitted
        if chosen is None:
            return None
        setting, lines = chosen.setting, [f"# {chosen}"]
        values = self.risk[1] if setting.fitted and self.risk is not None else self.main.table.of(setting)
        assert values is not None
        parts: dict[str, Any] = {}
        if setting.layers is not None:
            parts["detection"] = {"layers": list(setting.layers)}
        if cla_layer(setting.score) is not None:
            parts["calibration"] = {"curvature_samples": 1000}
        weights = setting.weights
        if fitted is not None and fitted.sight is not Sight.BLIND:
            lines.append(f"# {fitted}" if setting.fitted else f"# beside it: {fitted}")
            weights = fitted.setting.weights
        if weights is not None:
            parts["risk"] = {"weights": weights}
        action = Verdict.REJECT if policy.correction is None else Verdict.CORRECT
        limit = {"quantile": round(1.0 - _share_to_reject(values, self.main), 4)}
        parts["rules"] = [{"id": "validated", "score": setting.score, "limit": limit, "action": str(action)}]
        if chosen.sight is Sight.SEES and not chosen.kind.weak:
            parts["require_validated"] = True
        return "\n".join((*lines, yaml.safe_dump(parts, sort_keys=False, allow_unicode=True)))

    def in_words(self, remarks: Sequence[str]) -> list[str]:
        """The answer, around what was remarked on the way to it."""
        if self.best is None:
            return ["too few samples have a score and evidence: more --samples", *remarks]
        blind = f"THE SCORES ARE BLIND HERE: the best on one half is no better than chance on the other: {self.best}"
        answer = [blind if self.usable is None else str(self.usable)]
        if self.main.kind.weak:
            answer.append(
                f"the only evidence is weak ({self.main.what}): whether the scores see this checkpoint's own faults is "
                "not known; label some samples, or give real images"
            )
        compared = [] if self.by_class is None else [f"against rates by class: {self.by_class}; against rates over all: {self.best}"]
        return [*answer, *remarks, *compared]


def best_of(findings: Iterable[Finding]) -> Finding | None:
    """The score to choose, by the lower end of its AUC on the choosing half: a score that few samples have is not chosen for its luck."""
    candidates = [(one.chosen_by.low, one) for one in findings if one.chosen_by is not None]
    return max(candidates, key=lambda pair: pair[0], default=(0.0, None))[1]


def fitted_risk(profile: Profile, evidence: SampleEvidence) -> ScoredSetting | None:
    """The joined risk with weights fitted on the choosing half, over counts at every R and detection layer and never-seen neurons; None
    where no part tells bad samples from good ones."""
    columns, layers = evidence.table.columns, detection_layers(profile.policy, profile.info.chain)
    parts = [names.low_rate(r, layer) for r in profile.info.rates for layer in layers]
    parts += [names.never_seen(layer) for layer in layers]
    rows = np.arange(len(evidence.bad))[CHOOSING]
    rows = rows[~np.isnan(evidence.badness[rows] + np.sum([columns[part][rows] for part in parts], axis=0))]
    risk = Risk(profile.scores, dict.fromkeys(parts, 1.0))
    surprise = np.column_stack([risk.surprise(part, columns[part][rows]) for part in parts])
    weights = logistic_weights(surprise, evidence.bad[rows])
    if weights is None:
        return None
    rounded = {part: round(weight, 3) for part, weight in zip(parts, weights.tolist(), strict=True) if weight >= 5e-4}
    return ScoreSetting(score=names.RISK, weights=rounded, fitted=True), Risk(profile.scores, rounded)(columns)


def logistic_weights(inputs: np.ndarray, bad: np.ndarray) -> np.ndarray | None:
    """Weights (P,) of the parts (N, P) by which their sum tells bad samples best: penalised logistic regression, bounded below by 0, scaled
    to a mean of 1. None where all samples are of one kind, or no part tells them apart."""
    from scipy.optimize import minimize
    from scipy.special import expit

    sign = np.where(bad, 1.0, -1.0)

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (inputs @ at[1:] + at[0])
        wrong = -sign * expit(-margin)
        value = np.logaddexp(0.0, -margin).sum() + 0.5 * (at[1:] ** 2).sum()
        return float(value), np.concatenate([[wrong.sum()], inputs.T @ wrong + at[1:]])

    if bad.all() or not bad.any():
        return None
    bounds = [(None, None), *[(0.0, None)] * inputs.shape[1]]
    found: np.ndarray = minimize(loss, np.zeros(inputs.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=bounds).x[1:]
    return found / found.mean() if found.sum() > 0 else None


def _share_to_reject(values: np.ndarray, evidence: SampleEvidence) -> float:
    """Where the bad samples that go and the good ones that stay are most (Youden's index), on the choosing half."""
    rows = np.arange(len(evidence.bad))[CHOOSING]
    rows = rows[~np.isnan(values[rows])]
    score, bad = values[rows], evidence.bad[rows]

    def gain(share: float) -> float:
        over = score > np.quantile(score, 1.0 - share, method="higher")
        return float(over[bad].mean() - over[~bad].mean())

    return max(SHARES[1:], key=gain)
