"""The demonstration: calibrate the face generator, gate samples of it, and show what the scores see and what ablation repairs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from qualitygate import names, storage
from qualitygate.corrections.ablation import low_rate_ablation, random_ablation
from qualitygate.errors import ProfileError
from qualitygate.gating import exhibit
from qualitygate.gating.calibrate import calibrate, default_policy, with_curvature
from qualitygate.gating.profile import Profile, load_profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Generator
from qualitygate.generators.passes import Reporter
from qualitygate.produce.executor import InProcess
from qualitygate.produce.records import SAMPLES, read_samples
from qualitygate.produce.run import plan, produce
from qualitygate.produce.worker import GateSource, Job
from qualitygate.records.gate import GateSummary
from qualitygate.reports.sheets import comparison_sheet
from qualitygate.scores.local_activation import DIVISIONS
from qualitygate.scores.low_rate import PAPER_RATE
from qualitygate.tracking.gated_set import REPORT

EXTREMES = 60
CURVATURE = 48
_ABLATED = 24


@dataclass(frozen=True)
class Demonstration:
    """What came out, with numbers worth telling, by what they are, and what lies where."""

    summary: GateSummary
    profile: Profile
    facts: Mapping[str, str]
    places: Mapping[str, Path]


def demonstrate(generator: Generator, out: Path, reporter: Reporter) -> Demonstration:
    """Run it all into ``out``. A profile that lies there already is used again; a gated set is replaced."""
    profile = _profile(generator, out / "profile", reporter)
    source = GateSource(lambda _: generator, None, out / "profile", None, seed=1)
    opened = source.open(str(generator.device))
    stage = opened.stage
    shutil.rmtree(out / "gated", ignore_errors=True)
    job = Job(source, plan(opened, ids=range(2_000), form=None, curvature=CURVATURE), str(out / "gated"))
    summary = produce(InProcess(job, str(generator.device), opened), reporter)
    columns, _ = read_samples(out / "gated" / SAMPLES)
    shutil.rmtree(out / "sheets", ignore_errors=True)
    with storage.new_folder(out / "sheets") as folder, reporter.phase("contact sheets", 5) as progress:
        for name, sheet in _sheets(stage, columns):
            sheet.save(folder / f"{name}.png")
            progress(1)
    places = {
        "everything on one page": out / "gated" / REPORT,
        "the worst and the best by low-rate neurons": out / "sheets" / "most_low_rate_0.1.png",
        "worst repaired by ablation, and wrecked at random": out / "sheets" / "ablation.png",
        "best, worst, corrected, rejected, borderline": out / "gated" / "gallery",
        "scores and limits": out / "gated" / "figures" / "scores.png",
        "one record a sample": out / "gated" / SAMPLES,
        "images that were kept": out / "gated" / "images",
        "what calibration learned": out / "profile",
    }
    return Demonstration(summary, profile, _facts(profile, columns), places)


def _profile(generator: Generator, folder: Path, reporter: Reporter) -> Profile:
    """The profile in the folder if it is of this generator and these settings, else a new one."""
    policy = with_curvature(default_policy(generator.family), generator.presets.curvature[0])
    with suppress(ProfileError):
        found = load_profile(folder)
        found.check_generator(generator)
        found.limits(policy)
        if (found.info.calibration, found.info.rates) == (policy.calibration, policy.detection.rates):
            return found
    profile = calibrate(generator, policy, reporter=reporter)
    shutil.rmtree(folder, ignore_errors=True)
    profile.save(folder)
    return profile


def _sheets(stage: GateStage, columns: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Image.Image]]:
    generator = stage.generator
    for r in (stage.policy.headline_rate, PAPER_RATE):
        order = np.argsort(columns[names.low_rate(r)], kind="stable")
        for word, rows in (("fewest", order[:EXTREMES]), ("most", order[::-1][:EXTREMES])):
            latents = stage.latents(rows)
            title = f"The {EXTREMES} samples of {len(columns[names.ID]):,} with the {word} active low-rate neurons at R = {r:g}"
            rows_of = {"generated": exhibit.render(generator, latents)}
            yield f"{word}_{names.low_rate(r)}", comparison_sheet(list(map(str, rows)), rows_of, title)
    worst = np.argsort(columns[names.low_rate(stage.policy.headline_rate)], kind="stable")[::-1][:_ABLATED]
    latents = stage.latents(worst)
    made = {"generated": exhibit.render(generator, latents)}
    for r in stage.limits.strengths:
        edits = low_rate_ablation(stage.profile.rates, stage.detection, r, generator.device)
        made[f"R = {r:g}"] = exhibit.render(generator, latents, edits)
    at_random = generator.images(latents, lambda rows: random_ablation(latents[rows], stage.detection)).numpy()
    made["30 % at random"] = [storage.to_uint8(image) for image in at_random]
    title = f"The {_ABLATED} worst samples, and what sequential ablation of their low-rate neurons makes of them"
    yield "ablation", comparison_sheet(list(map(str, worst)), made, title)


def _facts(profile: Profile, columns: Mapping[str, np.ndarray]) -> dict[str, str]:
    paper = names.low_rate(PAPER_RATE)
    shares = ", ".join(f"{of_layer[names.rate(PAPER_RATE)]:.3f}" for of_layer in profile.info.low_rate_shares.values())
    facts = {
        "neurons with an activation rate of at most 0.3, by layer": shares,
        "active low-rate neurons of a sample at R = 0.3": f"{columns[paper].min():.0f} … {columns[paper].max():.0f}",
    }
    order = np.argsort(columns[names.low_rate(profile.policy.headline_rate)], kind="stable")
    for layer in profile.policy.curvature_layers():
        low, high = (columns[names.cla(layer)][rows].mean() for rows in (order[:CURVATURE], order[-CURVATURE:]))
        what = f"CLA at layer {layer}, mean of the {CURVATURE} with the fewest and the {CURVATURE} with the most low-rate neurons"
        facts[what] = f"{low:.3g} and {high:.3g}"
    passes, whole = columns[names.CLA_PASSES], profile.info.settings["latent_size"] * DIVISIONS
    screened = f"{passes.mean():.0f} on average, {np.mean(passes == 0):.0%} none; the exact score takes {whole:,}"
    return facts | {"early passes to screen a sample for CLA": screened}
