"""The profile: what calibration learned of a checkpoint before its first sample is gated. One folder; calibrate once, gate many."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as tensors_bytes
from torch import Tensor

from qualitygate import names, storage
from qualitygate.errors import InputError, LayerError, PolicyError, ProfileError
from qualitygate.gating.scoring import add_totals
from qualitygate.generators.base import Generator
from qualitygate.latents import Sampling
from qualitygate.policy.corrections import recheck_layers
from qualitygate.policy.decide import Limits, Risk, default_weights, resolve
from qualitygate.policy.model import Calibration, Policy, load_policy, policy_yaml
from qualitygate.policy.scores import parse
from qualitygate.policy.suite import check_suite
from qualitygate.records import GenerationPrecision, canonical_hash
from qualitygate.records.validation import Evidence, ScoreSetting, Sight, named_setting
from qualitygate.scores.low_rate import ActivationRates
from qualitygate.storage import file_sha256
from qualitygate.units.score import UnitScores

INFO, POLICY, SUITE, EVIDENCE = "profile.json", "policy.yaml", "suite.json", "evidence.json"
COUNTS, SCORES, UNITS = "activation_counts.safetensors", "calibration.parquet", "units.parquet"
_SEALED = (COUNTS, SCORES, UNITS, POLICY)  # the suite alone is open to expectations written by hand; evidence may be missing


class Chain(BaseModel):
    """What a policy needs to know of a generator's chain of layers.

    Attributes:
        preset: layers whose low-rate neurons are counted and edited unless the policy names others.
        last: index of the last layer.
        stop: stopping layer of sequential correction unless the policy names another; None in profiles that are older than that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: tuple[int, ...]
    last: int
    stop: int | None = None

    @classmethod
    def of(cls, generator: Generator) -> Chain:
        return cls(preset=generator.presets.low_rate, last=generator.layers[-1].index, stop=generator.presets.stop)

    def checked(self, layers: tuple[int, ...] | None) -> tuple[int, ...]:
        """The given layers, or the preset, in order. Raises `LayerError` where the chain has no such layer."""
        chosen = tuple(sorted(set(self.preset if layers is None else layers)))
        if not chosen or chosen[0] < 0 or chosen[-1] > self.last:
            raise LayerError("The policy names a layer that the generator does not have", str(list(chosen)), f"layers 0 … {self.last}")
        return chosen


class ProfileInfo(BaseModel):
    """The readable part of a profile, ``profile.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    profile_id: str
    package_version: str
    checkpoint: str
    checkpoint_sha256: str
    family: str
    settings: dict[str, Any]
    chain: Chain
    sampling: Sampling
    calibration: Calibration
    layers: tuple[int, ...]
    """Layers whose rates and scores are known."""
    rates: tuple[float, ...]
    """Values of R at which samples were counted."""
    device: str
    precision: GenerationPrecision = "float32"
    """Numbers in which the generator ran; one of others is another generator to it."""
    scores: dict[str, dict[str, float]]
    """Mean and quantiles of every score, from its values (N,)."""
    low_rate_shares: dict[str, dict[str, float]]
    """Share of each layer's neurons with an activation rate of at most R."""
    files: dict[str, str]
    """SHA-256 of the files beside this one that nobody is meant to edit."""


@dataclass(frozen=True)
class Profile:
    """A checkpoint's profile.

    Attributes:
        rates: activation rates of the untouched generator.
        scores: scores of the calibration samples by name, float64.
        policy: the policy it was calibrated with: the default when gating.
        suite: the expectation suite, open to hand-written expectations.
        evidence: whether the scores mean anything; None before `qualitygate validate`.
    """

    info: ProfileInfo
    rates: ActivationRates
    scores: Mapping[str, np.ndarray]
    units: Mapping[str, Any]
    policy: Policy
    suite: Mapping[str, Any]
    evidence: Evidence | None = None

    def limits(self, policy: Policy) -> Limits:
        """The policy's limits as numbers. Raises `ProfileError` where the profile does not hold what the policy needs."""
        judged = correction_layers(policy, self.info.chain)[1]
        layers = {*scored_layers(policy, self.info.chain), *judged}
        missing = [f"layer {layer}" for layer in sorted(layers - {*self.info.layers})]
        missing += [f"R = {rate:g}" for rate in policy.detection.rates if rate not in self.info.rates]
        if missing:
            raise ProfileError(
                "The profile does not cover the policy",
                f"layers {list(self.info.layers)}, R {list(self.info.rates)}",
                ", ".join(missing),
                "calibrate again with this policy",
            )
        columns = self.columns(policy)

        def quantile(score: str, q: float) -> float:
            if score not in columns:
                raise ProfileError(
                    f"The profile has no score {score}", f"scores {', '.join(sorted(columns))}", score, "calibrate again with this policy"
                )
            known = columns[score][~np.isnan(columns[score])]  # exact CLA: of a part of the calibration only
            found = parse(score)
            rises = found is None or found.score.higher_is_worse
            return float(np.quantile(known, q, method="higher" if rises else "lower"))

        return resolve(policy, judged, quantile)

    def columns(self, policy: Policy) -> dict[str, np.ndarray]:
        """Scores of the calibration samples by name, float64 (N,), with the sums over the policy's detection layers."""
        columns = dict(self.scores)
        add_totals(columns, policy.detection.rates, detection_layers(policy, self.info.chain))
        columns[names.RISK] = self.risk(policy)(columns)
        return columns

    def risk(self, policy: Policy) -> Risk:
        """The policy's joined risk, against the scores of the calibration samples. Raises `PolicyError` where a part was not calibrated."""
        reference = dict(self.scores)
        layers = detection_layers(policy, self.info.chain)
        add_totals(reference, policy.detection.rates, layers)
        weights = policy.risk.weights
        if weights is None:
            calibrated = tuple(layer for layer in policy.curvature_layers() if names.cla(layer) in reference)
            weights = default_weights(policy.headline_rate, layers, calibrated)
        return Risk(reference, weights)

    def with_unit_scores(self, scores: Iterable[UnitScores]) -> Profile:
        """This profile with more columns in its table of units, to rank by: ``units/SOURCE``, see `names.given_unit_score`."""
        given = {names.given_unit_score(one.source): unit_column(self.units, one.by_layer) for one in scores}
        return replace(self, units={**self.units, **given})

    def unit_scores(self, column: str, layers: tuple[int, ...]) -> dict[int, Tensor]:
        """A column of the table of units as scores, float64 (units,) by layer. Raises `ProfileError` where there is no such column, or it
        does not know all of these layers."""
        table = self.units
        scores = [name for name in table if name not in (names.UNIT_KEY, names.LAYER, names.UNIT)]
        wanted = f"{column} of the units of layers {list(layers)}"
        remedy = "choose one of those, or calibrate again with a policy that has this correction"
        if column in (names.UNIT_CLA, names.UNIT_CLA_PLAIN):
            remedy = (
                "set calibration.curvature_samples to some tens and this correction in the policy, and calibrate again; or rank "
                "by each sample's own CLA: ranking: sample"
            )
        if column not in scores:
            raise ProfileError("The profile does not rank the units so", f"scores {', '.join(scores)}", wanted, remedy)
        known = list(zip(table[names.LAYER], table[column], strict=True))
        by_layer = {layer: [value for at, value in known if at == layer] for layer in layers}
        unknown = [layer for layer, values in by_layer.items() if not values or None in values]
        if unknown:
            raise ProfileError(f"The profile does not rank all units by {column}", f"no {column} at layers {unknown}", wanted, remedy)
        return {layer: torch.tensor(values, dtype=torch.float64) for layer, values in by_layer.items()}

    def check_generator(self, generator: Generator) -> None:
        """Raises `ProfileError` unless the profile is of this very checkpoint, in the same precision."""
        origin = generator.identity()
        if origin.sha256 != self.info.checkpoint_sha256:
            raise ProfileError(
                "The profile belongs to another checkpoint",
                f"a profile of {self.info.checkpoint} (SHA-256 {self.info.checkpoint_sha256[:12]}…)",
                f"one of {origin.name} (SHA-256 {origin.sha256[:12]}…)",
                "calibrate this checkpoint, or gate the one the profile was made of",
            )
        if generator.precision != self.info.precision:
            raise ProfileError(
                "The profile belongs to another precision",
                f"a profile of the generator in {self.info.precision}",
                f"one in {generator.precision}",
                f"use --precision {self.info.precision}, or calibrate in {generator.precision}",
            )

    def check_seed(self, seed: int) -> None:
        """Raises `InputError` if this is the seed that the limits were set with."""
        if seed == self.info.calibration.seed:
            raise InputError(
                "This is the seed of the calibration",
                f"seed {seed}",
                "another seed",
                "samples that set the limits must not be judged by them: choose any other --seed",
            )

    def save(self, path: str | Path) -> None:
        """Write the profile's folder, in one step. Raises `OutputError` where something else is there already."""
        with storage.new_folder(path) as folder:
            counts = {f"layer_{layer}": tensor.contiguous() for layer, tensor in self.rates.counts.items()}
            storage.write_bytes(folder / COUNTS, tensors_bytes(counts))
            storage.write_table(folder / SCORES, self.scores)
            storage.write_table(folder / UNITS, self.units)
            storage.write_bytes(folder / POLICY, policy_yaml(self.policy).encode())
            storage.write_bytes(folder / SUITE, json.dumps(self.suite, indent=2).encode())
            if self.evidence is not None:
                storage.write_bytes(folder / EVIDENCE, self.evidence.model_dump_json(indent=2).encode())
            _write_info(folder, self.info, {name: file_sha256(folder / name) for name in (*_SEALED, EVIDENCE) if (folder / name).exists()})


def _write_info(folder: Path, info: ProfileInfo, files: dict[str, str]) -> None:
    storage.write_bytes(folder / INFO, info.model_copy(update={"files": files}).model_dump_json(indent=2).encode())


def load_profile(path: str | Path) -> Profile:
    """Read a profile's folder. Raises `ProfileError` where it is missing, unreadable, of another format, or was changed since."""
    folder = Path(path)
    needed = "a folder made by `qualitygate calibrate`"
    if not (folder / INFO).is_file():
        found = "no such folder" if not folder.exists() else f"no {INFO} in it"
        raise ProfileError(f"No profile at {folder}", found, needed, "run `qualitygate calibrate CHECKPOINT --out FOLDER`")
    try:
        info = ProfileInfo.model_validate_json((folder / INFO).read_bytes())
        sealed = (*_SEALED, EVIDENCE) if EVIDENCE in info.files else _SEALED
        changed = [name for name in sealed if file_sha256(folder / name) != info.files.get(name)]
        if info.profile_id != profile_id(info.checkpoint_sha256, info.sampling, info.calibration, info.layers, info.rates, info.precision):
            changed.append(INFO)
        if changed:
            raise ProfileError(f"The profile {folder} was changed after it was written", ", ".join(changed), needed, "calibrate again")
        tensors = load_file(folder / COUNTS)
        suite = json.loads((folder / SUITE).read_text(encoding="utf8"))
        evidence = Evidence.model_validate_json((folder / EVIDENCE).read_bytes()) if EVIDENCE in sealed else None
    except (OSError, ValueError, ValidationError, SafetensorError) as error:
        raise ProfileError(f"Cannot read the profile {folder}", str(error).splitlines()[0], needed, "calibrate again") from error
    counts = {int(name.removeprefix("layer_")): tensor.to(torch.int64) for name, tensor in tensors.items()}
    rates = ActivationRates(counts, info.calibration.rate_samples, info.calibration.seed, info.sampling)
    scores, _ = storage.read_table(folder / SCORES)
    units, _ = storage.read_table(folder / UNITS)
    return Profile(
        info,
        rates,
        {name: scores[name].to_numpy() for name in scores.column_names if name != names.ID},
        {name: units[name].to_pylist() for name in units.column_names},
        load_policy(folder / POLICY),
        check_suite(suite, str(folder / SUITE)),
        evidence,
    )


def unit_column(units: Mapping[str, Any], by_layer: Mapping[int, np.ndarray | Tensor]) -> list[float | None]:
    """Scores (units,) by layer as a column of the table of units; None for a unit that has none."""
    places = zip(units[names.LAYER], units[names.UNIT], strict=True)
    values = (float(by_layer[layer][unit]) if layer in by_layer else np.nan for layer, unit in places)
    return [value if np.isfinite(value) else None for value in values]


def detection_layers(policy: Policy, chain: Chain) -> tuple[int, ...]:
    """Layers that are counted for detection."""
    return chain.checked(policy.detection.layers)


def scored_layers(policy: Policy, chain: Chain) -> tuple[int, ...]:
    """Layers that every sample is counted at: those of the detection, and those that a rule names."""
    return chain.checked((*detection_layers(policy, chain), *policy.counted_layers()))


def correction_layers(policy: Policy, chain: Chain) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Layers that the correction edits, and those that a corrected sample is judged on; both empty without a correction."""
    if policy.correction is None:
        return (), ()
    edited = chain.checked(policy.correction.edited(chain.preset, chain.stop))
    return edited, recheck_layers(edited, chain.last)


def calibrated_layers(policy: Policy, chain: Chain) -> tuple[int, ...]:
    """Every layer up to the last one that the policy needs: the pass goes through all of them anyway."""
    edited, judged = correction_layers(policy, chain)
    return tuple(range(max((*scored_layers(policy, chain), *edited, *judged)) + 1))


def profile_id(
    checkpoint_sha256: str,
    sampling: Sampling,
    calibration: Calibration,
    layers: tuple[int, ...],
    rates: tuple[float, ...],
    precision: str = "float32",
) -> str:
    """Hash of what calibration depends on; thresholds are not part of it."""
    made_in = {} if precision == "float32" else {"precision": precision}  # older ids know no other
    return canonical_hash(
        {
            "checkpoint": checkpoint_sha256,
            **made_in,
            "sampling": sampling.model_dump(mode="json"),
            "calibration": calibration.model_dump(mode="json"),
            "layers": list(layers),
            "rates": list(rates),
        }
    )


class BlindScoreWarning(UserWarning):
    """A policy decides by a score that was found to be no better than chance on this checkpoint."""


def check_validated(profile: Profile, policy: Policy) -> None:
    """Hold the scores that decide against what is known of them: a `BlindScoreWarning` for a rule by a score that the evidence calls blind,
    a `PolicyError` where the policy requires validated scores and a rule goes by another."""
    evidence = profile.evidence
    known = {rule.score: None if evidence is None else evidence.of(setting_of(profile, policy, rule.score)) for rule in policy.rules}
    if policy.require_validated:
        unseen = [
            f"{score}: nothing is known of it" if found is None else str(found)
            for score, found in known.items()
            if found is None or found.sight is not Sight.SEES or found.kind.weak
        ]
        if unseen:
            raise PolicyError(
                "The policy requires validated scores",
                "; ".join(unseen),
                "scores that see what is bad by labels or real images",
                "run `qualitygate validate` with either, and gate by what it recommends; or leave out require_validated",
            )
    for found in known.values():
        if found is not None and found.sight is Sight.BLIND:
            warnings.warn(f"{found}; its verdicts are no better than chance", BlindScoreWarning, stacklevel=3)


def setting_of(profile: Profile, policy: Policy, score: str) -> ScoreSetting:
    """What a score of a policy is: over which layers, with which weights."""
    if score == names.RISK:
        return named_setting(score, (), profile.risk(policy).weights)
    summed = names.split_layer(score)[1] is None
    return named_setting(score, detection_layers(policy, profile.info.chain)) if summed else ScoreSetting(score=score)


def write_evidence(folder: str | Path, evidence: Evidence) -> None:
    """Put evidence into a profile's folder, in place of what there was. Whenever this is cut off, the profile can be read. Raises
    `ProfileError` where there is no profile, or the evidence is of another one."""
    folder = Path(folder)
    info = load_profile(folder).info
    if info.profile_id != evidence.profile_id:
        raise ProfileError(
            "The evidence is of another profile",
            f"profile {evidence.profile_id[:12]}",
            f"profile {info.profile_id[:12]}",
            "validate with this profile",
        )
    files = {name: digest for name, digest in info.files.items() if name != EVIDENCE}
    _write_info(folder, info, files)
    storage.write_bytes(folder / EVIDENCE, evidence.model_dump_json(indent=2).encode())
    _write_info(folder, info, {**files, EVIDENCE: file_sha256(folder / EVIDENCE)})
