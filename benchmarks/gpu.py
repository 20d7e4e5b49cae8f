"""Right, and how fast, on a GPU: every claim with both of its sides, in one run. `benchmarks/gpu.sh` brings what a bare machine lacks.

    benchmarks/gpu.sh [--carried FOLDER] [--only PART …] [--out gpu]

Writes ``gpu.json`` and ``gpu.md``: what was found, the goal, whether it was met, and each part's seconds and peak memory. On the CPU the
same script runs small: widths of 16, images of 16×16; the goals are a GPU's, and are shown but not judged there.

- ``parity``: every recorded tensor of the original implementations, on the device, in standard deviations of the recorded one; the same in
  lower precisions; two runs, bit by bit.
- ``faces``: scores and verdicts of the face generator on the CPU and on the device, and in each precision.
- ``precisions``: bare generation in each precision, and of a fixed micro-batch compiled and as a CUDA graph, over plain float32.
- ``curvature``: exact CLA of a PGGAN and a StyleGAN2 as wide as the papers', against the matrix rate and a loop over axes with hooks.
- ``gate``: the whole gate of StyleGAN2 at 256² and 1024² over bare generation, images as uint8 on the host on both sides.
- ``production``: accepted images to disk against generate-then-filter with a judge that costs nothing.
- ``rates``: activation rates of 30,000 latents against bare passes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # a checkout need not be installed; the recorded vectors are tests

from curvature import measured as curvature_measured
from precision import drifts
from production import measured as production_measured
from subjects import random_dcgan, random_pggan, random_stylegan2
from timing import Spread, interleaved

from qualitygate import names
from qualitygate.checkpoints.contents import Contents
from qualitygate.checkpoints.demonstration import face_generator
from qualitygate.checkpoints.load import assemble_contents, load_generator
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import on_host, pixels
from qualitygate.latents import Latents, Sampling
from qualitygate.policy.model import Calibration, Detection, Limit, Policy, Rule
from qualitygate.records import GenerationPrecision
from qualitygate.records.gate import Verdict
from qualitygate.scores.low_rate import activation_rates

SEED = 1
LOWER: tuple[GenerationPrecision, ...] = ("tf32", "bfloat16", "float16")


@dataclass(frozen=True)
class Row:
    """A figure: a ratio of two sides of one run, an error, or a rate that explains them."""

    what: str
    value: float
    unit: str = ""
    spread: tuple[float, float] | None = None
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Size:
    """How large everything is: as in the papers on a GPU, a toy on the CPU."""

    width: int
    images: tuple[int, ...]
    ids: int
    rates: int
    rounds: int
    faces: int
    pilot: int  # exact scores that screening is fitted on; docs/screening.md has 1,000
    error: float  # share of verdicts that it may change
    compiled: tuple[str, ...]  # precisions, a minute each

    @classmethod
    def on(cls, device: torch.device) -> Size:
        if device.type == "cpu":
            return cls(16, (16,), 128, 256, 1, 128, 20, 0.1, ())
        return cls(512, (256, 1024), 512, 30_000, 5, 2048, 256, 0.01, ("float32", "bfloat16"))


def at_most(what: str, spread: Spread, goal: float, on: torch.device) -> Row:
    met = spread.median <= goal if on.type == "cuda" else None
    return Row(what, spread.median, "×", (spread.low, spread.high), f"at most {goal:g}", met)


def at_least(what: str, spread: Spread, goal: float, on: torch.device, unit: str = "×") -> Row:
    met = spread.median >= goal if on.type == "cuda" else None
    return Row(what, spread.median, unit, (spread.low, spread.high), f"at least {goal:g}", met)


def parity(device: torch.device, size: Size, wheel: Path | None) -> Iterator[Row]:
    """Images and inner tensors of every file of vectors, in the worst case, and whether two runs agree in every bit."""
    from reference.vectors import load

    worst: dict[str, float] = {}
    lower: dict[str, list[float]] = {precision: [] for precision in LOWER}
    same = True
    for path in sorted((ROOT / "tests/reference").glob("cases_*.py")):
        for case in importlib.import_module(f"reference.{path.stem}").CASES:
            vectors = load(case.file)
            generator = assemble_contents(Contents("recorded", case.tree(vectors)), case.file).generator.to(device)
            labels = vectors.tensors.get("input/c")
            labels = labels.long() if labels is not None and labels.ndim == 1 else labels
            for key, sampling in case.images.items():
                recorded = vectors.tensors[key]
                z = vectors.tensors["input/z"]
                latents = Latents(np.arange(len(z)), None, z, labels, Sampling(**sampling))[: len(recorded)]
                first, second = _raw(generator, latents), _raw(generator, latents)
                same &= torch.equal(first, second)
                error = float((first.cpu() - recorded).abs().max() / recorded.std())
                worst[case.file] = max(worst.get(case.file, 0.0), error)
                for precision, errors in lower.items():
                    found = _raw(generator.at(precision), latents).float().cpu()
                    errors.append(float((found - recorded).square().mean().sqrt() / recorded.std()))
    for file, error in worst.items():
        yield Row(f"{file}: largest error of an image", error, "σ", goal="at most 1e-4", met=error <= 1e-4)
    for precision, errors in lower.items():
        yield Row(f"{precision}: error of an image, root mean square, of the worst file", max(errors), "σ")
    yield Row("two runs agree in every bit", float(same), goal="1", met=same)


def _raw(generator: Generator, latents: Latents) -> torch.Tensor:
    with generator.scored_pass():
        return generator.finish(generator.run(generator.start(latents), generator.layers[-1].index))


def faces(device: torch.device, size: Size, wheel: Path | None) -> Iterator[Row]:
    """The default gate of the face generator, here and on the CPU, from one profile."""
    path = face_generator(wheel)
    generators = [load_generator(path, torch.device("cpu")), load_generator(path, device)]
    policy = Policy(calibration=Calibration(rate_samples=30 * size.faces // 2, score_samples=size.faces))
    profile = calibrate(generators[0], policy)
    here, there = ([*GateStage(one, profile, policy, seed=SEED).blocks(range(size.faces))] for one in generators)
    columns = sorted({name for block in here for name in block.columns} & {name for block in there for name in block.columns})
    clear = sum(int((~(a.decisions.borderline | b.decisions.borderline)).sum()) for a, b in zip(here, there, strict=True))
    other = sum(
        int(((a.decisions.verdict != b.decisions.verdict) & ~(a.decisions.borderline | b.decisions.borderline)).sum())
        for a, b in zip(here, there, strict=True)
    )
    moved = max(float(np.nanmax(np.abs(a.columns[name] - b.columns[name]))) for a, b in zip(here, there, strict=True) for name in columns)
    yield Row(f"verdicts that differ, of {clear} samples that are not borderline", other, goal="0", met=other == 0)
    yield Row("largest difference of a score", moved)
    for one in drifts(generators[1], policy, size.faces, LOWER):
        yield Row(f"{one.precision}: drift of the score, median", one.score_median, "σ")
        yield Row(f"{one.precision}: drift of the score, most", one.score_most, "σ")
        yield Row(f"{one.precision}: verdicts that differ from float32's, each by its own profile", one.verdicts)
        yield Row(f"{one.precision}: error of an image, root mean square", one.grey, "/255")


def precisions(device: torch.device, size: Size, wheel: Path | None) -> Iterator[Row]:
    """One micro-batch from latents on the device to uint8 there, over and over: the same work however it is run."""
    generator = whole_stylegan2(size.images[0], size.width).to(device)
    latents = sample_latents(generator, range(64), SEED).to(device)
    ways: dict[str, Callable[[], object]] = {}
    for precision in ("float32", *LOWER):
        made_in = generator.at(precision)
        ways[precision] = partial(_made, made_in, latents)
        if device.type == "cuda":
            ways[f"{precision}, CUDA graph"] = _graph(made_in, latents)
        if precision in size.compiled:
            ways[f"{precision}, compiled"] = _compiled(made_in, latents)
    timed = interleaved(ways, size.rounds, device)
    for way in ways:
        found = timed.ratio(way, "float32")
        yield Row(f"StyleGAN2 at {size.images[0]}², {way} / float32", found.median, "×", (found.low, found.high))


def _made(generator: Generator, latents: Latents) -> torch.Tensor:
    with generator.scored_pass():
        return pixels(generator(latents))


def _graph(generator: Generator, latents: Latents) -> Callable[[], object]:
    beside = torch.cuda.Stream()
    with torch.cuda.stream(beside):  # what is made once, and cuDNN's plans, must be there before
        _made(generator, latents)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _made(generator, latents)
    return graph.replay


def _compiled(generator: Generator, latents: Latents) -> Callable[[], object]:
    run = torch.compile(lambda z: pixels(generator(Latents(latents.ids, latents.seed, z, latents.labels, latents.sampling))), dynamic=False)

    def made() -> torch.Tensor:
        with generator.scored_pass():
            return run(latents.z)

    made()
    return made


def curvature(device: torch.device, size: Size, wheel: Path | None) -> Iterator[Row]:
    for name, make in (("PGGAN", random_pggan), ("StyleGAN2", random_stylegan2)):
        generator = make(size.width).to(device)
        for precision in ("float32", "tf32", "bfloat16"):
            ours, _ = curvature_measured(name, generator, precision, 16 if device.type == "cuda" else 1, size.rounds)
            what = f"exact CLA, {name} {size.width} wide at {ours.layer}, {precision}"
            yield at_least(f"{what}: share of the matrix rate", ours.share, 0.60, device, "")
            yield at_least(f"{what}: loop over axes with hooks / ours", ours.faster_than_loop, 30.0, device)
            yield Row(f"{what}: samples a second", ours.samples_per_second.median)


def gate(device: torch.device, size: Size, wheel: Path | None) -> Iterator[Row]:
    for side in size.images:
        generator = whole_stylegan2(side, size.width).to(device)
        bare = partial(as_uint8, generator)
        for what, policy, goal in (("low-rate counts", counting(), 1.05), ("screened CLA too", screening(generator, size), 1.10)):
            stage = GateStage(generator, calibrate(generator, policy), policy, seed=SEED, as_pixels=True)
            ids = range(size.ids if side < 1024 else size.ids // 4)
            timed = interleaved({"gate": partial(gated, stage, ids), "bare": partial(bare, ids)}, size.rounds, device)
            yield at_most(f"gate of StyleGAN2 at {side}², {what} / bare generation", timed.ratio("gate", "bare"), goal, device)
        yield Row(f"bare generation of StyleGAN2 at {side}²", timed.rate("bare", len(ids)).median, "images/s")


def production(device: torch.device, size: Size, wheel: Path | None) -> Iterator[Row]:
    generator = whole_stylegan2(size.images[0], size.width).to(device)
    policy = counting(0.9)
    found = production_measured(
        GateStage(generator, calibrate(generator, policy), policy, seed=SEED, as_pixels=True), size.ids, size.rounds
    )
    ratio = Spread(**found["gated_over_filtered"])
    yield at_most("time of an accepted image on disk, gate / generate-then-filter", ratio, 1.0, device)
    for part, share in found["time_shares_of_gated"].items():
        yield Row(f"share of the time: {part}", share)


def rates(device: torch.device, size: Size, wheel: Path | None) -> Iterator[Row]:
    generator = random_dcgan().to(device) if device.type == "cpu" else random_stylegan2(size.width).to(device)
    layers = generator.presets.low_rate

    def bare() -> None:
        for start in range(0, size.rates, 1024):
            for _ in generator.activations(sample_latents(generator, range(start, min(size.rates, start + 1024)), SEED), [max(layers)]):
                pass

    sides = {"rates": lambda: activation_rates(generator, layers, size.rates, SEED), "bare": bare}
    timed = interleaved(sides, size.rounds, device)
    yield Row(f"rates of {size.rates} latents / bare passes", timed.ratio("rates", "bare").median, "×")
    yield Row("latents a second", timed.rate("rates", size.rates).median)


PARTS: dict[str, Callable[[torch.device, Size, Path | None], Iterator[Row]]] = {
    one.__name__: one for one in (parity, faces, precisions, curvature, gate, production, rates)
}


def whole_stylegan2(side: int, width: int) -> Generator:
    """StyleGAN2 with random weights, up to the whole image, as wide as its config F: 512 units to 64×64, then half as many at twice the
    size."""
    return random_stylegan2(width, [min(width, 64 * width // 2**power) for power in range(2, side.bit_length())])


def counting(quantile: float | None = None) -> Policy:
    """Counts of low-rate neurons, and a limit that accepts everything or this share."""
    limit = Limit(value=1e12) if quantile is None else Limit(quantile=quantile)
    rule = Rule(id="low_rate", score="low_rate_0.3", limit=limit, action=Verdict.REJECT)
    return Policy(calibration=Calibration(rate_samples=2048, score_samples=512), rules=(rule,), correction=None)


def screening(generator: Generator, size: Size) -> Policy:
    """Counts, and CLA screened at the .9 quantile of a pilot of exact scores."""
    rule = Rule(id="curvature", score=names.cla(*generator.presets.curvature), limit=Limit(quantile=0.9), action=Verdict.REJECT)
    counts = counting()
    return Policy(
        detection=Detection(curvature_precision="bfloat16", curvature_error=size.error),
        calibration=counts.calibration.model_copy(update={"curvature_samples": size.pilot}),
        rules=(*counts.rules, rule),
        correction=None,
    )


def as_uint8(generator: Generator, ids: range) -> int:
    """Bare generation, images as uint8 on the host."""
    total = 0
    for _, images in generator.image_batches(sample_latents(generator, ids, SEED)):
        total += len(on_host(pixels(images)))
    return total


def gated(stage: GateStage, ids: range) -> int:
    return sum(len(block.images) for block in stage.blocks(ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--wheel", type=Path, help="of the face generator; fetched or found in the cache without it")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="write OUT.json and OUT.md")
    options = parser.parse_args()
    gpu = options.device.type == "cuda"
    about = {
        "device": torch.cuda.get_device_name(options.device) if gpu else f"{platform.machine()} CPU",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
    }
    document: dict[str, object] = dict(about)
    lines = [", ".join(f"{key} {value}" for key, value in about.items()) + "\n"]
    for name in options.only:
        print(f"{name} …", file=sys.stderr)
        if gpu:
            torch.cuda.reset_peak_memory_stats(options.device)
        start = time.perf_counter()
        rows = list(PARTS[name](options.device, Size.on(options.device), options.wheel))
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated(options.device) if gpu else None
        document[name] = {"seconds": seconds, "peak_bytes": peak, "rows": [asdict(row) for row in rows]}
        lines += [_table(name, rows, seconds, peak)]
        # written after every part: a run that ends early leaves what it found
        options.out.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
        options.out.with_suffix(".md").write_text("\n".join(lines))
    print("\n".join(lines))


def _table(name: str, rows: list[Row], seconds: float, peak: int | None) -> str:
    memory = "" if peak is None else f", peak memory {peak / 2**30:.2f} GiB"
    lines = [f"## {name}: {seconds:.0f} s{memory}\n", "| what | found | quartiles | goal | met |", "| --- | ---: | --- | --- | --- |"]
    for row in rows:
        spread = "" if row.spread is None else f"{row.spread[0]:.3g} … {row.spread[1]:.3g}"
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        lines.append(f"| {row.what} | {row.value:.4g} {row.unit} | {spread} | {row.goal} | {met} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
