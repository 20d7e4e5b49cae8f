"""The study of corrections: what is asked for, and which corrections that names: methods × sources of units × layers × strengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.policy.corrections import METHODS, RANDOM_UNITS, Correction, HighRateAblation, SequentialAblation
from qualitygate.policy.model import Policy
from qualitygate.requests import Flag, GeneratorRequest, WithExtractor, WithPolicy, WithReal

NONE = "none"
"""In place of an extractor."""


class CorrectionsRequest(GeneratorRequest, WithPolicy, WithReal, WithExtractor):
    """Which corrections are compared, on which samples, and what images are held against."""

    profile: Path = Field(description="Profile made by `calibrate`.")
    method: tuple[str, ...] | None = Field(None, description="A method to compare, such as sequential_ablation; repeatable; default: all.")
    strengths: Annotated[tuple[str, ...] | None, Flag(metavar="METHOD=S,S,…")] = Field(
        None, description="Strengths of a method in place of its own, from the least; repeatable."
    )
    edit: Annotated[tuple[str, ...] | None, Flag(metavar="L,L,…")] = Field(
        None, description="Layers to edit in place of the method's own; repeatable: every method with each."
    )
    units: Path | None = Field(None, description="Also rank units by every score in this folder, written by `qualitygate units`.")
    labels: Path | None = Field(None, description="Correct the artifacts of these labels (see `label`), in place of the worst.")
    label_seed: int | None = Field(None, description="Seed of the labelled samples; default: the calibration's.")
    planted: bool = Field(False, description="The file is a planted generator: correct its defects, and hold them against the truth.")
    samples: int = Field(60, description="How many samples: the worst of the pool; of others, at most so many.")
    pool: int = Field(2000, description="How many samples they are the worst of.")
    seed: int = Field(1, ge=0, description="Seed of the samples; any but the calibration's.")
    real: str | None = Field(
        None, description="Real images for FID, realism and precision: a folder, .zip, .tar, .parquet, .npz, or `digits`."
    )
    extractor: str = Field(NONE, description=f"Features of FID and realism, see `metrics`, or `{NONE}`; with --real or on its own.")
    harm: int = Field(0, ge=0, description="Normal samples to correct too: how far they move is harm.")
    own_cla: bool = Field(False, description="Also rank units, and mask, by each sample's own exact CLA: some thousand passes each.")
    grid: Annotated[str | None, Flag(metavar="R,R,…")] = Field(
        None, description="Instead of the methods: low-rate beside high-rate ablation at these R, layer by layer."
    )
    show: int = Field(12, ge=1, description="Samples on the sheets.")
    keep: str | None = Field(
        None, description="Name of a correction whose images are all written to OUT, for `qualitygate label --corrected`."
    )
    out: Path | None = Field(None, description="Folder for tables, figures and sheets; must not exist yet.")

    def corrections(self, policy: Policy, layers: Sequence[int], unit_scores: Sequence[str] = ()) -> dict[str, Correction]:
        """Corrections worth comparing, by name: the policy's own, and every other method as it is by default, judged like the policy's own.
        Units are ranked by each sample's own low-rate activity, by the profile's low-rate activity and CLA, by further columns
        (``unit_scores``, see `Profile.with_unit_scores`), and at random. In place of all that, with ``grid``, low-rate beside high-rate
        ablation at every rate: of each of the detection layers alone, and of all of them (IJCAI 2022, figure 5 and table 1). Raises
        `InputError` for an option that cannot be read, no such method, strengths that it cannot have, or none of the name to keep."""
        chosen = self._methods(policy, unit_scores) if self.grid is None else _grid(policy, layers, self.grid)
        if self.keep is not None and self.keep not in chosen:
            raise InputError("There is no such correction to keep", self.keep, f"one of {'; '.join(chosen)}")
        return chosen

    def _methods(self, policy: Policy, unit_scores: Sequence[str]) -> dict[str, Correction]:
        asked = [one.partition("=") for one in self.strengths or ()]
        strengths = {method: tuple(_numbers(values, "strengths")) for method, _, values in asked}
        if unknown := sorted({*(self.method or ()), *strengths} - {*METHODS}):
            raise InputError("There is no such correction", ", ".join(unknown), f"one of {', '.join(METHODS)}")
        edited = [tuple(int(layer) for layer in _numbers(one, "layers")) for one in self.edit or ()]
        own = policy.correction
        judged = {"judged_at": policy.headline_rate} if own is None else {"judged_at": own.judged_at, "limit": own.limit}
        found: dict[str, Correction] = {}
        for method in (method for method in METHODS if not self.method or method in self.method):
            made = METHODS[method]
            if own is not None and own.method == method:
                found[f"{method}, the policy's"] = own
            given: dict[str, Any] = {}
            if method in strengths:
                field = made.strength_field if made.strength_field in made.model_fields else "shares"
                given = {field: strengths[method]}
                try:
                    made(**given)
                except ValueError as error:
                    values = ", ".join(f"{one:g}" for one in strengths[method])
                    needed = f"{field} from the least to the most correction, each in (0, 1]"
                    raise InputError(f"{method} cannot have these strengths", values, needed) from error
            for place, where in _places(made, edited).items():
                for variant, how in _variants(made, self.own_cla, unit_scores).items():
                    correction = made(**judged, **given, **where, **how)
                    if correction != own:
                        found[f"{method}{variant}{place}"] = correction
        return found


def _grid(policy: Policy, layers: Sequence[int], text: str) -> dict[str, Correction]:
    rates = _numbers(text, "rates")
    if not all(0.0 < rate <= 1.0 for rate in rates):
        raise InputError("These are no rates", repr(text), "numbers in (0, 1] with commas, for example --grid 0.1,0.3,0.5")
    judged_at = policy.headline_rate if policy.correction is None else policy.correction.judged_at
    sets = [(layer,) for layer in layers] + ([tuple(layers)] if len(layers) > 1 else [])
    return {
        f"{kind}, layers {','.join(map(str, chosen))}, R = {rate:g}": made(layers=chosen, rates=(rate,), judged_at=judged_at)
        for chosen in sets
        for rate in rates
        for kind, made in (("low-rate", SequentialAblation), ("high-rate", HighRateAblation))
    }


def _places(made: type[Correction], layers: Sequence[tuple[int, ...]]) -> dict[str, dict[str, Any]]:
    """Settings of the layers by what is added to the name."""
    if not layers:
        return {"": {}}
    if "layer" in made.model_fields:
        return {f", layer {one[0]}": {"layer": one[0]} for one in layers if len(one) == 1}
    return {f", layers {','.join(map(str, one))}": {"layers": one} for one in layers}


def _variants(made: type[Correction], own_cla: bool, unit_scores: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of each source of units or masks by what is added to the name."""
    if "ranking" in made.model_fields:
        sources = {
            "own low-rate activity": ("sample", names.UNIT_LOW_RATE),
            "low-rate activity": ("profile", names.UNIT_LOW_RATE),
            "CLA": ("profile", names.UNIT_CLA),
            **{one: ("profile", one) for one in unit_scores},
            "random units": ("profile", RANDOM_UNITS),
            **({"own CLA": ("sample", names.UNIT_CLA)} if own_cla else {}),
        }
        return {f", {of}": {"ranking": ranking, "score": score} for of, (ranking, score) in sources.items()}
    if "mask" in made.model_fields:
        masks = {"low-rate neurons": "low_rate", **({"own CLA": "cla"} if own_cla else {})}
        return {f", {of}": {"mask": mask} for of, mask in masks.items()}
    return {"": {}}


def _numbers(text: str, what: str) -> list[float]:
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise InputError(f"These are no {what}", repr(text), "numbers with commas, for example 0.1,0.3") from None
