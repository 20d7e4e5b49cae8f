"""Exact curvature of local activation: speed against the machine's matrix rate and against the loop one would first write, and what a
precision does to signs and scores.

    python benchmarks/curvature.py [CHECKPOINT …] [--paper-size] [--device cuda] [--precision bfloat16 …] [--out curvature]

Without a checkpoint: a DCGAN with random weights. ``--paper-size`` adds a PGGAN and a StyleGAN2 as wide as the papers' with random
weights, on the CPU an eighth as wide. Needs torch, numpy and safetensors for these, and the package's dependencies for checkpoints.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import bare  # noqa: F401  before the package
import numpy as np
import torch
from matrix import CPU_PRODUCTS, GPU_PRODUCTS, operations_of_a_pass, product
from plain import plain_curvature, plain_dcgan, reading
from subjects import from_checkpoint, random_dcgan, random_pggan, random_stylegan2
from timing import Spread, Timed, interleaved
from torch import Tensor

from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.latents import Latents
from qualitygate.scores.local_activation import BOUND, DIVISIONS, Precision, grid, local_activation, walked_in

SEED = 1
_CPU_WIDTH = 64


@dataclass(frozen=True)
class Row:
    """One engine at one precision."""

    generator: str
    layer: str
    engine: str
    precision: str
    samples_per_second: Spread
    gflops: Spread
    share: Spread
    faster_than_loop: Spread | None = None
    signs_changed: float | None = None
    score_error: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path)
    parser.add_argument("--paper-size", action="store_true", help="add a PGGAN and a StyleGAN2 with random weights")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--precision", nargs="+", choices=get_args(Precision), default=list(get_args(Precision)))
    parser.add_argument("--samples", type=int, help="samples of our side; by default 2, on a GPU 16")
    parser.add_argument("--rounds", default=5, type=int, help="rounds of every comparison; the median is shown")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    options = parser.parse_args()
    samples = options.samples or (16 if options.device.type == "cuda" else 2)
    rows: list[Row] = []
    for name, generator in _subjects(options.checkpoints, options.paper_size, options.device):
        for precision in options.precision:
            print(f"{name}, {precision} …", file=sys.stderr)
            rows += measured(name, generator, precision, samples, options.rounds)
    gpu = options.device.type == "cuda"
    about = {
        "device": torch.cuda.get_device_name(options.device) if gpu else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": options.rounds,
    }
    table = _markdown(rows, about)
    print(table, end="")
    if options.out is not None:
        options.out.with_suffix(".md").write_text(table)
        document = {**about, "rows": [asdict(row) for row in rows]}
        options.out.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")


def measured(name: str, generator: Generator, precision: Precision, samples: int, rounds: int) -> Iterator[Row]:
    """Ours, the loop and matrix products of the same precision, in turn."""
    layer = generator.layers[generator.presets.curvature[0]]
    latents = sample_latents(generator, range(samples), SEED)
    walked = walked_in(generator, precision)
    work = generator.latent_size * DIVISIONS * operations_of_a_pass(generator, layer.index)
    read, z = _read(generator, layer.index, precision), latents.z[0].to(generator.device)

    def loop() -> Tensor:
        with walked.scored_pass():
            return plain_curvature(read, z, BOUND, DIVISIONS)

    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: local_activation(generator, latents, [layer.index], precision=precision),
        "loop": loop,
    }
    shapes = CPU_PRODUCTS if generator.device.type == "cpu" else GPU_PRODUCTS
    numbers = torch.bfloat16 if precision == "bfloat16" else torch.float32
    products = {str(shape): product(generator.device, shape, work / 8, dtype=numbers, tf32=precision == "tf32") for shape in shapes}
    timed = interleaved({**sides, **products}, rounds, generator.device)
    best = min(products, key=lambda shape: float(np.median(timed.seconds[shape])))
    ours = _row(Row(name, layer.resolution, "ours", precision, *3 * [Spread(0, 0, 0)]), timed, work, samples, best)
    yield replace(
        ours,
        faster_than_loop=Spread.of(samples * timed.seconds["loop"] / timed.seconds["ours"]),
        signs_changed=_signs_changed(generator, latents[:1], layer.index, precision),
        score_error=_score_error(generator, latents[:2], layer.index, precision),
    )
    yield _row(replace(ours, engine="loop"), timed, work, 1, best)


def _row(row: Row, timed: Timed, work: float, samples: int, best: str) -> Row:
    return replace(
        row,
        samples_per_second=timed.rate(row.engine, samples),
        gflops=timed.rate(row.engine, samples * work / 1e9),
        share=Spread.of(8 * samples * timed.seconds[best] / timed.seconds[row.engine]),
    )


def _read(generator: Generator, layer: int, precision: Precision) -> Callable[[Tensor], Tensor]:
    """The other side's pass: of a DCGAN the usual chain with a hook, else the family's ordinary pass, which is no slower than that."""
    bfloat16 = precision == "bfloat16"
    if isinstance(generator, DCGAN):
        model = plain_dcgan(generator)
        read = reading(model.bfloat16() if bfloat16 else model, layer)
        return lambda z: read(z.bfloat16() if bfloat16 else z).float()
    walked = walked_in(generator, precision)

    def ordinary(z: Tensor) -> Tensor:
        *_, last = walked.states(walked.start(Latents(np.arange(len(z)), None, z)), layer)
        return last.activation.float()

    return ordinary


def _signs_changed(generator: Generator, latents: Latents, layer: int, precision: Precision) -> float:
    """Share of activations at the grid points of one sample's axes, at most 100 of them, whose sign is not that of float64."""
    axes = torch.arange(min(generator.latent_size, 100), device=generator.device)
    distances = grid(BOUND, DIVISIONS, None, axes.device).flatten()

    def positive(walked: Generator, numbers: torch.dtype) -> Tensor:
        moved = generator.checked(latents).to(generator.device)
        moved = replace(moved, z=moved.z.to(numbers))
        with walked.scored_pass():
            parts = walked.parts(walked.begun(walked.full.begin_moved(moved, axes, distances)), layer)
            return torch.cat([(activation > 0).flatten(1) for index, _, activation in parts if index == layer], dim=1)

    changed = positive(walked_in(generator, precision), torch.float32) ^ positive(_float64(generator), torch.float64)
    return float(changed.double().mean())


def _score_error(generator: Generator, latents: Latents, layer: int, precision: Precision) -> float:
    """Largest relative difference of a sample's score from float64's."""
    exact = replace(latents, z=latents.z.double())
    truth = local_activation(_float64(generator), exact, [layer]).score[layer]
    score = local_activation(generator, latents, [layer], precision=precision).score[layer]
    return float(((score - truth).abs() / truth).max())


def _float64(generator: Generator) -> Generator:
    return copy.deepcopy(generator).double()


def _subjects(checkpoints: list[Path], paper_size: bool, device: torch.device) -> Iterator[tuple[str, Generator]]:
    for path in checkpoints:
        yield path.name, from_checkpoint(path, device)
    if not checkpoints:
        yield "DCGAN, random", random_dcgan().to(device)
    if paper_size:
        width = _CPU_WIDTH if device.type == "cpu" else 512
        yield f"PGGAN, random, {width} wide", random_pggan(width).to(device)
        yield f"StyleGAN2, random, {width} wide", random_stylegan2(width).to(device)


def _markdown(rows: list[Row], about: dict[str, object]) -> str:
    head = ", ".join(f"{key} {value}" for key, value in about.items())
    titles = (
        "generator",
        "layer",
        "engine",
        "precision",
        "samples/s",
        "GFLOP/s",
        "share of matrix rate",
        "× loop",
        "signs changed",
        "score error",
    )
    lines = [f"{head}\n", f"| {' | '.join(titles)} |", "| --- | --- | --- | --- | ---: | ---: | --- | --- | ---: | ---: |"]
    for row in rows:
        share = f"{row.share.median:.2f} ({row.share.low:.2f} … {row.share.high:.2f})"
        times = "" if row.faster_than_loop is None else f"{row.faster_than_loop.median:.3g}"
        effect = ["" if value is None else f"{value:.1e}" for value in (row.signs_changed, row.score_error)]
        cells = (
            row.generator,
            row.layer,
            row.engine,
            row.precision,
            f"{row.samples_per_second.median:.3g}",
            f"{row.gflops.median:.4g}",
            share,
            times,
            *effect,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
