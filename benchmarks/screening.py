"""Screened against exact CLA on held-out samples: how often verdicts agree, and how much of the work they take.

    python benchmarks/screening.py CHECKPOINT... [--random D...] [--layer L] [--pilot 1000] [--held 1000]

For each checkpoint: a pilot is walked exactly (found in the cache if it was before), the schedule is fitted on it, and held-out samples
are judged at limits of the .80, .90, .95 and .99 quantile. Intervals are Wilson's, at 95 %. The second table is the curve of agreement
against work: what every tier reaches by itself. The last is passes by latent size and limit, over many divisions of the same samples into
pilot and held-out ones: the error is promised on average over pilots. Passes are counted, not seconds: ``--random`` measures narrow PGGANs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from subjects import narrow_pggan

from qualitygate import names
from qualitygate.checkpoints.load import load_generator
from qualitygate.gating.curvature import PilotTable, fitted_screen, free_evidence, stage_column
from qualitygate.gating.scoring import Scorer, joined
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.latents import Sampling
from qualitygate.scores.local_activation import DIVISIONS
from qualitygate.scores.low_rate import activation_rates
from qualitygate.scores.screening import RARE, Screen, Stage, schedule
from qualitygate.units.classifier import wilson

QUANTILES = (0.8, 0.9, 0.95, 0.99)
RATES = (0.02, 0.05, 0.1, 0.2, 0.3)
SEED = 0
SPLITS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*")
    parser.add_argument(
        "--random", nargs="*", type=int, default=[], metavar="D", help="PGGANs 8 units wide, with random weights, of these D"
    )
    parser.add_argument("--layer", type=int, help="whose CLA is screened; by default the preset")
    parser.add_argument("--pilot", type=int, default=1000)
    parser.add_argument("--held", type=int, default=1000)
    parser.add_argument("--rate-samples", type=int, default=30_000, help="latents for the activation rates")
    parser.add_argument("--error", type=float, default=0.01)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON too")
    options = parser.parse_args()
    subjects = [(Path(path).name, load_generator(path, device=options.device)) for path in options.checkpoints]
    subjects += [("PGGAN, random weights", narrow_pggan(size).to(options.device)) for size in options.random]
    results = [measure(name, generator, options) for name, generator in subjects]
    for result in results:
        print(page(result))
    print(passes_by_limit(results))
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))


def measure(name: str, generator: Generator, options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one checkpoint, at one layer."""
    layer = generator.presets.curvature[0] if options.layer is None else options.layer
    ids = range(options.rate_samples, options.rate_samples + options.pilot + options.held)
    evidence = evidence_of(generator, ids, options.rate_samples)
    table = PilotTable(generator, Sampling(), SEED, (layer,)).columns(ids, _counter(len(ids)))
    pilot = {name: values[: options.pilot] for name, values in table.items()}
    held = {name: values[options.pilot :] for name, values in table.items()}
    limits = {q: float(np.quantile(pilot[names.cla(layer)], q, method="higher")) for q in QUANTILES}
    screens = {
        q: fitted_screen(pilot, evidence[: options.pilot], generator.latent_size, layer, [limit], options.error, elsewhere=False)
        for q, limit in limits.items()
    }
    judged = evidence[options.pilot :]
    return {
        "checkpoint": name,
        "latent_size": generator.latent_size,
        "layer": layer,
        "pilot": options.pilot,
        "held": options.held,
        "images_per_exact": generator.latent_size * DIVISIONS * generator.layers[layer].operations / generator.operations,
        "verdicts": [
            {
                "quantile": q,
                "width": screen.width,
                "certified": screen.certified,
                **judge(generator, screen, held, judged, limits[q], layer),
            }
            for q, screen in screens.items()
        ],
        "curve": list(curve(generator, screens[0.9], held, judged, layer, limits[0.9])),
        "splits": [over_splits(generator, table, evidence, layer, q, options) for q in QUANTILES],
    }


def over_splits(
    generator: Generator, table: Mapping[str, np.ndarray], evidence: np.ndarray, layer: int, quantile: float, options: argparse.Namespace
) -> dict[str, float]:
    """Passes and wrong verdicts on held-out samples, over divisions into pilot and held-out samples: means, and deviation of the passes."""
    random, exact, found = np.random.default_rng(SEED), table[names.cla(layer)], []
    for _ in range(SPLITS):
        pilot, held = np.split(random.permutation(len(exact)), [options.pilot])
        fitted, judged = ({name: values[rows] for name, values in table.items()} for rows in (pilot, held))
        limit = float(np.quantile(exact[pilot], quantile, method="higher"))
        screen = fitted_screen(fitted, evidence[pilot], generator.latent_size, layer, [limit], options.error, elsewhere=False)
        result = judge(generator, screen, judged, evidence[held], limit, layer)
        found.append((result["passes"], 1.0 - result["agree"][0], screen.certified))
    passes, wrong, certified = np.array(found).T
    return {
        "quantile": quantile,
        "passes": passes.mean(),
        "passes_deviation": passes.std(),
        "wrong": wrong.mean(),
        "certified": certified.mean(),
        "stated": min(options.error, RARE * (1.0 - quantile)),
    }


def evidence_of(generator: Generator, ids: range, rate_samples: int) -> np.ndarray:
    """What the gate reads anyway of these samples."""
    layers = generator.presets.low_rate
    rates = activation_rates(generator, layers, rate_samples, SEED)
    score = Scorer(generator, rates.to(generator.device), RATES, layers, moments=True)
    columns = joined(columns for _, columns, _ in score.over(sample_latents(generator, ids, SEED)))
    return free_evidence(columns, layers, RATES)


def judge(
    generator: Generator, screen: Screen, held: Mapping[str, np.ndarray], evidence: np.ndarray, limit: float, layer: int
) -> dict[str, Any]:
    """Screens held-out samples from their tabled scores, as the gate would from walked ones."""
    stages = schedule(generator.latent_size)
    exact = held[names.cla(layer)]
    estimates = _estimates(stages, generator.latent_size, held, layer)
    open_, over = np.ones(len(exact), dtype=bool), np.zeros(len(exact), dtype=bool)
    passes, shares = np.zeros(len(exact)), []
    for tier in range(len(stages)):
        bounds = screen.bounds(tier, evidence, estimates)
        leaves = open_ & ((bounds.low > limit) == (bounds.high > limit))
        over[leaves], open_ = bounds.value[leaves] > limit, open_ & ~leaves
        shares.append(float(open_.mean()))
        passes[open_] += stages[tier].passes(stages[:tier], DIVISIONS)
    over[open_] = exact[open_] > limit
    truth = exact > limit
    return {
        "work": float(passes.mean()) / (generator.latent_size * DIVISIONS),
        "passes": float(passes.mean()),
        "open": shares,
        "agree": share(int((over == truth).sum()), len(truth)),
        "precision": share(int((over & truth).sum()), int(over.sum())),
        "recall": share(int((over & truth).sum()), int(truth.sum())),
    }


def curve(
    generator: Generator, screen: Screen, held: Mapping[str, np.ndarray], evidence: np.ndarray, layer: int, limit: float
) -> Iterator[dict[str, Any]]:
    """Every tier, were it the last of all samples: the work, how well it orders them, and how often its verdict at the limit is right."""
    from scipy.stats import spearmanr

    stages = schedule(generator.latent_size)
    exact = held[names.cla(layer)]
    estimates = _estimates(stages, generator.latent_size, held, layer)
    for tier in range(len(stages)):
        value = screen.bounds(tier, evidence, estimates).value
        stage = stages[tier - 1] if tier else None
        yield {
            "axes": stage.axes if stage else 0,
            "points": 2 * len(stage.points or range(DIVISIONS // 2)) if stage else 0,
            "work": sum(one.passes(stages[:at], DIVISIONS) for at, one in enumerate(stages[:tier])) / (generator.latent_size * DIVISIONS),
            "spearman": float(spearmanr(value, exact)[0]),
            "spearman_alone": float(spearmanr(estimates[:, tier - 1], exact)[0]) if stage else None,
            "spread": screen.spreads[tier],
            "agree": float(((value > limit) == (exact > limit)).mean()),
        }


def share(hits: int, count: int) -> list[float]:
    """A share with its interval at 95 %: [share, low, high]."""
    return [hits / count, *wilson(hits, count)] if count else [float("nan"), 0.0, 1.0]


def page(result: Mapping[str, Any]) -> str:
    """The tables of one checkpoint, in Markdown."""
    lines = [
        f"### {result['checkpoint']}: D = {result['latent_size']}, layer {result['layer']}, pilot {result['pilot']:,}, "
        f"held out {result['held']:,}; one exact score costs {result['images_per_exact']:.0f} images",
        "",
        "| limit | width | work | verdicts equal | precision | recall | open after each tier |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["verdicts"]:
        shares = " ".join(f"{left:.3f}" for left in row["open"])
        ranges = " | ".join(f"{p:.3f} ({low:.3f}–{high:.3f})" for p, low, high in (row["agree"], row["precision"], row["recall"]))
        width = f"{row['width']:.2f}" + ("" if row["certified"] else "*")
        lines.append(f"| {row['quantile']:g} | {width} | {row['work']:.2%} | {ranges} | {shares} |")
    lines += [
        "",
        "\\* the pilot is too small to certify the error at a limit so rare: the widest margin it needed.",
        "",
        "| axes × points | work | Spearman, with the free evidence | alone | spread | verdicts equal at .90 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["curve"]:
        alone = "" if row["spearman_alone"] is None else f"{row['spearman_alone']:.4f}"
        lines.append(
            f"| {row['axes']} × {row['points']} | {row['work']:.2%} | {row['spearman']:.4f} | {alone} | {row['spread']:.3f} | "
            f"{row['agree']:.3f} |"
        )
    return "\n".join([*lines, ""])


def passes_by_limit(results: Sequence[Mapping[str, Any]]) -> str:
    """Passes of a sample by latent size and limit, in Markdown."""
    lines = [
        "| generator | D | exact | limit | passes, mean ± deviation over pilots | of exact | wrong verdicts | stated |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        exact = result["latent_size"] * DIVISIONS
        for row in result["splits"]:
            stated = f"{row['stated']:.2%}" if row["certified"] == 1.0 else "not certified"
            lines.append(
                f"| {result['checkpoint']}, layer {result['layer']} | {result['latent_size']} | {exact:,} | {row['quantile']:g} | "
                f"{row['passes']:.0f} ± {row['passes_deviation']:.0f} | {row['passes'] / exact:.1%} | {row['wrong']:.2%} | {stated} |"
            )
    return "\n".join([*lines, ""])


def _estimates(stages: tuple[Stage, ...], latent_size: int, held: Mapping[str, np.ndarray], layer: int) -> np.ndarray:
    return np.column_stack([held[stage_column(stage, latent_size, layer)] for stage in stages[:-1]])


def _counter(total: int) -> Any:
    done, start = 0, time.monotonic()

    def count(more: int) -> None:
        nonlocal done
        done += more
        print(f"\r{done}/{total} exact, {time.monotonic() - start:.0f} s", end="", file=sys.stderr)

    return count


if __name__ == "__main__":
    main()
