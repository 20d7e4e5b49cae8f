"""Both sides of every claim about speed, measured in turn in one run.

    python benchmarks/speed.py [CHECKPOINT] [--device cuda] [--out speed]

The subject is a DCGAN: the checkpoint's, or one with random weights. ``--out speed`` writes ``speed.json`` and ``speed.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # a checkout need not be installed

from matrix import CPU_PRODUCTS, GPU_PRODUCTS, operations_of_a_pass, product
from plain import plain_curvature, plain_dcgan, reading
from subjects import from_checkpoint, random_dcgan
from timing import Spread, interleaved

from qualitygate import storage
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.profile import Profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.generators.passes import micro_batches, scored_pass
from qualitygate.policy.model import Calibration, Limit, Policy, Rule
from qualitygate.scores.local_activation import BOUND, DIVISIONS, local_activation
from qualitygate.scores.low_rate import activation_rates

IDS = range(256)
SEED = 1
CURVES = 2
"""Samples of an exact CLA."""
_CALIBRATION = Calibration(rate_samples=3000, score_samples=1000)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: Spread
    unit: str
    goal: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, help="file of a DCGAN; random weights without it")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--rounds", default=10, type=int, help="rounds of every comparison; the median is shown")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    options = parser.parse_args()
    generator = _subject(options.checkpoint, options.device)
    rows: list[Row] = []
    for part in (scoring, corrections, writing, rates, curvature):
        print(f"{part.__name__} …", file=sys.stderr)
        rows += part(generator, options.rounds)
    about = {
        "generator": generator.identity().name,
        "device": _device_name(options.device),
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


def scoring(generator: DCGAN, rounds: int) -> Iterator[Row]:
    """The gate without corrections, encoding and writing against bare generation of the same ids."""
    everything = Rule(id="any", score="low_rate_0.1", limit=Limit(value=1e9), action="reject")
    accepting = Policy(rules=(everything,), correction=None, calibration=_CALIBRATION)
    model = plain_dcgan(generator)
    stage = GateStage(generator, calibrate(generator, accepting), accepting, seed=SEED)
    timed = interleaved(
        {
            "scored": partial(_gate, stage),
            "bare": partial(_passes, generator, generator),
            "plain": partial(_passes, generator, lambda latents: model(latents.z[:, :, None, None].to(generator.device))),
        },
        rounds,
        generator.device,
    )
    yield Row("gate that accepts everything, 5 rates", timed.rate("scored", len(IDS)), "images/s")
    yield Row("bare generation, same generator", timed.rate("bare", len(IDS)), "images/s")
    yield Row("bare generation, plain nn.Sequential", timed.rate("plain", len(IDS)), "images/s")
    yield Row("time of the gate / bare generation", timed.ratio("scored", "bare"), "", "at most 1.05")
    yield Row("time of the gate / plain nn.Sequential", timed.ratio("scored", "plain"), "")


def corrections(generator: DCGAN, rounds: int) -> Iterator[Row]:
    """The default policy with and without its correction."""
    corrects = Policy(calibration=_CALIBRATION)
    rejects = corrects.model_copy(
        update={"correction": None, "rules": tuple(rule.model_copy(update={"action": "reject"}) for rule in corrects.rules)}
    )
    profile: Profile = calibrate(generator, corrects)
    sides = {
        name: partial(_gate, GateStage(generator, profile, policy, seed=SEED))
        for name, policy in (("corrects", corrects), ("rejects", rejects))
    }
    failing = len(IDS) - sides["rejects"]()
    timed = interleaved(sides, rounds, generator.device)
    if failing:
        yield Row(f"correction, a failing sample ({failing} of {len(IDS)})", _in_ms(timed.difference("corrects", "rejects", failing)), "ms")


def writing(generator: DCGAN, rounds: int) -> Iterator[Row]:
    """Encoding and writing on one thread; the gate does both in the background."""
    with scored_pass():
        images = generator(sample_latents(generator, IDS, SEED)).cpu().numpy()
    encoded = [storage.encode(storage.to_uint8(image)) for image in images]
    with tempfile.TemporaryDirectory() as folder:
        timed = interleaved(
            {
                "encode": lambda: [storage.encode(storage.to_uint8(image)) for image in images],
                "write": lambda: [(Path(folder) / storage.image_name(i)).write_bytes(data) for i, data in enumerate(encoded)],
            },
            rounds,
            torch.device("cpu"),
        )
    yield Row("PNG encoding, an image", _in_ms(timed.each("encode", len(IDS))), "ms")
    yield Row("writing, an image", _in_ms(timed.each("write", len(IDS))), "ms")


def rates(generator: DCGAN, rounds: int) -> Iterator[Row]:
    """Activation rates against bare passes to the same layer."""
    layers = generator.presets.low_rate
    timed = interleaved(
        {
            "rates": lambda: activation_rates(generator, layers, len(IDS), SEED),
            "bare": partial(_passes, generator, lambda latents: generator.run(generator.start(latents), max(layers))),
        },
        rounds,
        generator.device,
    )
    place = generator.layers[max(layers)].resolution
    yield Row(f"activation rates to {place}", timed.rate("rates", len(IDS)), "latents/s")
    yield Row(f"bare passes to {place}", timed.rate("bare", len(IDS)), "latents/s")
    yield Row("time of the rates / bare passes", timed.ratio("rates", "bare"), "")


def curvature(generator: DCGAN, rounds: int) -> Iterator[Row]:
    """Exact CLA of a sample against the loop one would first write, and against the machine's matrix rate."""
    layer = generator.layers[generator.presets.curvature[0]]
    latents = sample_latents(generator, IDS[:CURVES], SEED)
    model, z = plain_dcgan(generator), latents.z[0].to(generator.device)
    operations = generator.latent_size * DIVISIONS * operations_of_a_pass(generator, layer.index)

    def loop() -> torch.Tensor:
        with scored_pass():
            return plain_curvature(reading(model, layer.index), z, BOUND, DIVISIONS)

    def exact() -> torch.Tensor:
        return local_activation(generator, latents, [layer.index]).curvature[layer.index][0]

    torch.testing.assert_close(exact(), loop().cpu(), rtol=1e-3, atol=1e-4)
    shapes = CPU_PRODUCTS if generator.device.type == "cpu" else GPU_PRODUCTS
    products = {f"{shape}": product(generator.device, shape, operations / 8) for shape in shapes}
    timed = interleaved({"exact": exact, "loop": loop, **products}, rounds, generator.device)
    best = min(products, key=lambda name: float(np.median(timed.seconds[name])))
    giga = operations / 1e9
    share = Spread.of(8 * CURVES * timed.seconds[best] / timed.seconds["exact"])
    yield Row(f"exact CLA at {layer.resolution}, {giga:.0f} GFLOP a sample", timed.rate("exact", giga * CURVES), "GFLOP/s")
    yield Row(f"matrix product, best of {len(products)} shapes: {best}", timed.rate(best, giga / 8), "GFLOP/s")
    yield Row("exact CLA, share of the matrix rate", share, "", "at least 0.85")
    yield Row("exact CLA, a sample", timed.each("exact", CURVES), "s")
    yield Row("straightforward loop, a sample", timed.each("loop", 1), "s")
    yield Row("time of the loop / exact CLA", Spread.of(CURVES * timed.seconds["loop"] / timed.seconds["exact"]), "")


def _gate(stage: GateStage) -> int:
    """Gates the ids; how many images were kept."""
    return sum(len(block.images) for block in stage.blocks(IDS))


def _passes(generator: Generator, run: Callable[..., object]) -> None:
    """Passes over the same ids in the same micro-batches."""
    with scored_pass():
        for _, batch in micro_batches(sample_latents(generator, IDS, SEED), generator.micro_batch):
            run(batch)


def _subject(checkpoint: Path | None, device: torch.device) -> DCGAN:
    generator = random_dcgan().to(device) if checkpoint is None else from_checkpoint(checkpoint, device)
    if not isinstance(generator, DCGAN):
        raise SystemExit(f"{checkpoint} is a {generator.family}; the benchmark compares DCGANs.")
    return generator


def _in_ms(seconds: Spread) -> Spread:
    return Spread(1e3 * seconds.median, 1e3 * seconds.low, 1e3 * seconds.high)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"


def _markdown(rows: list[Row], about: dict[str, object]) -> str:
    head = ", ".join(f"{key} {value}" for key, value in about.items())
    lines = [f"{head}\n", "| what | median | quartiles | unit | goal |", "| --- | ---: | ---: | --- | --- |"]
    for row in rows:
        median, low, high = (f"{number:.4g}" for number in (row.value.median, row.value.low, row.value.high))
        lines.append(f"| {row.what} | {median} | {low} … {high} | {row.unit} | {row.goal} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
