"""Scores held against evidence: findings on one half of the samples, choices on the other, and a policy made of both.

Even rows choose and fit, odd rows are reported on; ids are drawn at random anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import yaml

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.metrics.estimate import auc, rank_correlation
from qualitygate.policy.corrections import Limit
from qualitygate.policy.decide import Risk, fit_weights
from qualitygate.policy.model import Calibration, Detection, Policy, Rule
from qualitygate.policy.scores import cla_layer
from qualitygate.records.gate import Verdict
from qualitygate.records.validation import FEWEST, EvidenceKind, EvidenceSource, Finding, ScoreSetting, Sight
from qualitygate.studies.metrics.groups import SHARE
from qualitygate.studies.validate.request import Request, Tools
from qualitygate.studies.validate.samples import Looked, Scored, ScoreTable, score_table
from qualitygate.testing.planted import Defect, plant
from qualitygate.units.labels import Labels

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares that are rejected, one after the other."""
_WORST_QUARTER = 0.25


@dataclass(frozen=True)
class Judged:
    """Samples of which one kind of evidence says how bad they are.

    Attributes:
        kind: of evidence.
        what: in words.
        badness: float64 (N,), higher = worse; NaN where nothing is known.
        bad: bool (N,).
        table: their scores.
        more: further settings, that no policy can ask for.
        caveat: what its numbers must not be taken for.
    """

    kind: EvidenceKind
    what: str
    badness: np.ndarray
    bad: np.ndarray
    table: ScoreTable
    more: tuple[Scored, ...] = ()
    caveat: str | None = None

    @classmethod
    def by_quality(cls, kind: EvidenceKind, what: str, quality: np.ndarray, table: ScoreTable, more: tuple[Scored, ...]) -> Judged:
        """The quarter with the lowest quality is bad."""
        return cls(kind, what, -quality, quality <= np.nanquantile(quality, _WORST_QUARTER), table, more)

    @property
    def source(self) -> EvidenceSource:
        return EvidenceSource(kind=self.kind, what=self.what, samples=int((~np.isnan(self.badness)).sum()), bad=int(self.bad.sum()))

    @property
    def enough(self) -> bool:
        """Whether both halves have bad and good samples."""
        halves = (choosing(len(self.bad)), reporting(len(self.bad)))
        return all(_enough(self.bad[half], ~np.isnan(self.badness[half])) for half in halves)

    def findings(self, seed: int) -> list[Finding]:
        """Every setting on this evidence."""
        found = (finding(setting, values, self, seed) for setting, values in (*self.table.settings, *self.more))
        return [one for one in found if one is not None]


def choosing(samples: int) -> np.ndarray:
    """Rows that choices are made by."""
    return np.arange(0, samples, 2)


def reporting(samples: int) -> np.ndarray:
    """Rows that are reported on."""
    return np.arange(1, samples, 2)


def finding(setting: ScoreSetting, values: np.ndarray, judged: Judged, seed: int) -> Finding | None:
    """One score on the evidence; None where too few samples have both."""
    known = ~np.isnan(values) & ~np.isnan(judged.badness)
    choose, report = (rows[known[rows]] for rows in (choosing(len(known)), reporting(len(known))))
    if not all(_enough(judged.bad[rows], np.ones(len(rows), dtype=bool)) for rows in (choose, report)):
        return None
    bad, score = judged.bad[report], values[report]
    correlation = rank_correlation(score, judged.badness[report], seed=seed)
    chosen_by = None if setting.fitted else auc(values[choose], judged.bad[choose], seed=seed)
    order, tenth = np.argsort(score, kind="stable"), max(1, round(SHARE * len(score)))
    return Finding(
        setting=setting,
        kind=judged.kind,
        samples=len(report),
        bad=int(bad.sum()),
        chosen_by=chosen_by,
        auc=auc(score, bad, seed=seed),
        correlation=correlation,
        bad_lowest=float(bad[order[:tenth]].mean()),
        bad_highest=float(bad[order[-tenth:]].mean()),
    )


def best_of(findings: Iterable[Finding], kind: EvidenceKind, *, by_class: bool = False) -> Finding | None:
    """The score to choose, by the lower end of its AUC on the choosing half: a score that few samples have is not chosen for its luck."""
    candidates = [
        (one.chosen_by.low, one) for one in findings if one.kind is kind and one.chosen_by is not None and one.setting.by_class == by_class
    ]
    return max(candidates, key=lambda pair: pair[0], default=(0.0, None))[1]


def fitted_risk(profile: Profile, judged: Judged) -> Scored | None:
    """The joined risk with weights fitted on the choosing half, over counts at every R and detection layer and never-seen neurons; None
    where no part tells bad samples from good ones."""
    layers = detection_layers(profile.policy, profile.info.chain)
    parts = [names.low_rate(r, layer) for r in profile.info.rates for layer in layers]
    parts += [names.never_seen(layer) for layer in layers]
    rows = choosing(len(judged.bad))
    rows = rows[~np.isnan(judged.badness[rows] + np.sum([judged.table.columns[part][rows] for part in parts], axis=0))]
    risk = Risk(profile.scores, dict.fromkeys(parts, 1.0))
    try:
        weights = fit_weights(risk, {part: judged.table.columns[part][rows] for part in parts}, judged.bad[rows])
    except InputError:
        return None
    rounded = {part: round(weight, 3) for part, weight in weights.items() if weight >= 5e-4}
    setting = ScoreSetting(score=names.RISK, weights=rounded, fitted=True)
    return setting, Risk(profile.scores, rounded)(judged.table.columns)


def rejected_share(values: np.ndarray, judged: Judged) -> float:
    """The share to reject: where the bad samples that go and the good ones that stay are most (Youden's index), on the choosing half."""
    rows = choosing(len(judged.bad))
    rows = rows[~np.isnan(values[rows])]
    score, bad = values[rows], judged.bad[rows]

    def gain(share: float) -> float:
        over = score > np.quantile(score, 1.0 - share, method="higher")
        return float(over[bad].mean() - over[~bad].mean())

    return max(SHARES[1:], key=gain)


def fragment(policy: Policy, chosen: Finding, fitted: Finding | None, share: float) -> str:
    """A policy's part, YAML: gate by the chosen score. What it rests on stands in comments."""
    setting, lines = chosen.setting, [f"# {chosen}"]
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
    rule = {"id": "validated", "score": setting.score, "limit": {"quantile": round(1.0 - share, 4)}, "action": str(action)}
    parts["rules"] = [rule]
    if chosen.sight is Sight.SEES and not chosen.kind.weak:
        parts["require_validated"] = True
    return "\n".join((*lines, yaml.safe_dump(parts, sort_keys=False, allow_unicode=True)))


def _enough(bad: np.ndarray, known: np.ndarray) -> bool:
    return min(int((bad & known).sum()), int((~bad & known).sum())) >= FEWEST


def strongest(judged: Sequence[Judged]) -> Judged:
    """The evidence that choices are made by."""
    order = list(EvidenceKind)
    return min(judged, key=lambda one: order.index(one.kind))


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
    return Judged(EvidenceKind.PLANTED, what, level, planted.truth.defective(latents).numpy(), table)


def _small_policy(profile: Profile) -> Policy:
    """Counts at the profile's layers and rates, from fewer samples."""
    info = profile.info
    calibration = Calibration(rate_samples=min(_RATES, info.calibration.rate_samples), score_samples=_SCORES, seed=info.calibration.seed)
    rule = Rule(id="any", score=names.never_seen(), limit=Limit(quantile=0.9), action=Verdict.REJECT)
    detection = Detection(layers=info.layers, rates=info.rates)
    return Policy(detection=detection, calibration=calibration, correction=None, rules=(rule,))


def evidence(tools: Tools, request: Request, looked: Looked, reporter: Reporter) -> Iterator[Judged]:
    """The evidence, the strongest first, whether or not there is enough of it."""
    if tools.labels is not None:
        yield _labelled(tools, tools.labels, request.curvature, reporter)
    yield from _against_real(looked)
    wanted = request.planted
    if wanted or (wanted is None and tools.labels is None and tools.real is None):
        yield planted_evidence(tools.generator, tools.profile, looked.latents, request.seed, reporter)
    if (values := looked.measured.discriminator) is not None:
        what = "the quarter of the samples that the discriminator likes least (weak evidence)"
        yield Judged.by_quality(EvidenceKind.DISCRIMINATOR, what, values, looked.table, looked.by_class.settings)


def enough_of(judged: Sequence[Judged], remarks: Sequence[str]) -> list[Judged]:
    """The evidence that has bad and good samples in both halves.

    Args:
        judged: all there is.
        remarks: what there is to say of it.

    Raises:
        InputError: there is none such.
    """
    kept = [one for one in judged if one.enough]
    if not kept:
        raise InputError(
            "There is no evidence to hold the scores against",
            "; ".join(remarks) or "none was given",
            "labels, real images, a discriminator or a planted defect, with bad and good samples in both halves",
            "give --labels or --real, or more --samples",
        )
    return kept


def remarks_on(judged: Sequence[Judged]) -> list[str]:
    """What to bear in mind of each kind, and which there is too little of."""
    return [
        *(one.caveat for one in judged if one.caveat is not None),
        *(
            f"too few samples of one kind: {one.what} ({one.source.bad:,} of {one.source.samples:,} bad)"
            for one in judged
            if not one.enough
        ),
    ]


def _labelled(tools: Tools, labels: Labels, curvature: int, reporter: Reporter) -> Judged:
    """What people said, of samples of their own."""
    info = tools.profile.info
    seed = info.calibration.seed if tools.label_seed is None else tools.label_seed
    latents = sample_latents(tools.generator, labels.ids, seed, sampling=info.sampling)
    return Judged(
        EvidenceKind.LABELS,
        f"samples called artifacts in {labels.source}",
        labels.artifact.astype(np.float64),
        labels.artifact,
        score_table(tools.generator, tools.profile, latents, curvature, reporter),
        caveat="labels: if the labelled samples were chosen by a score, that score's numbers are those of the chosen ones",
    )


def _against_real(looked: Looked) -> Iterator[Judged]:
    """How the images stand to real ones."""
    measured, real = looked.measured, looked.real
    if real is None:
        return
    against = f"against {real.samples:,} of {real.name}"
    yield Judged.by_quality(
        EvidenceKind.REALISM,
        f"the quarter of the samples with the lowest realism score {against}",
        measured.realism,
        looked.table,
        looked.by_class.settings,
    )
    inside = measured.inside
    yield Judged(
        EvidenceKind.PRECISION,
        f"samples outside of the real images' neighbourhoods {against}",
        1.0 - inside,
        inside < 0.5,
        looked.table,
        looked.by_class.settings,
    )


@dataclass(frozen=True)
class Choice:
    """What came out of all findings.

    Attributes:
        main: the evidence that chose.
        findings: every setting on every kind of evidence, the joined risk last.
        best: the best setting that a policy can ask for; None where too few samples have a score.
        by_class: the best against rates by class.
        fitted: the joined risk with fitted weights; None where there is none.
        risk: its setting and its scores of the samples of ``main``.
    """

    main: Judged
    findings: tuple[Finding, ...]
    best: Finding | None
    by_class: Finding | None
    fitted: Finding | None
    risk: Scored | None

    @classmethod
    def of(cls, judged: Sequence[Judged], profile: Profile, seed: int) -> Self:
        """Choose by the strongest of the evidence."""
        main = strongest(judged)
        single = [one for each in judged for one in each.findings(seed)]
        risk = fitted_risk(profile, main)
        fitted = None if risk is None else finding(*risk, main, seed)
        joined = (*single, fitted) if fitted is not None else tuple(single)
        best, by_class = best_of(single, main.kind), best_of(single, main.kind, by_class=True)
        return cls(main, joined, best, by_class, fitted, risk)

    @property
    def usable(self) -> Finding | None:
        """The best that is better than chance; None where the scores are blind."""
        return next((one for one in (self.best, self.fitted) if one is not None and one.sight is not Sight.BLIND), None)

    def advice(self, policy: Policy) -> str | None:
        """A policy's part that gates by it, YAML; None where nothing can be gated by."""
        if self.usable is None:
            return None
        if self.usable.setting.fitted:
            assert self.risk is not None
            values = self.risk[1]
        else:
            values = self.main.table.of(self.usable.setting)
        return fragment(policy, self.usable, self.fitted, rejected_share(values, self.main))

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
        if self.by_class is None:
            return [*answer, *remarks]
        return [*answer, *remarks, f"against rates by class: {self.by_class}; against rates over all: {self.best}"]
