"""What an accepted image costs with the gate, with generate-then-filter, and without either, measured in turn in one run.

    python benchmarks/production.py [CHECKPOINT] [--device cuda] [--out production]

Each side makes whole shards with the same encoding and writing: the gate as ``qualitygate gate --shards`` does; generate-then-filter
makes every image whole and throws away those that the gate rejects, with a judge that costs nothing; ungated keeps all. The limit is set
so that one sample in ten is rejected, without corrections. The subject is the checkpoint, or a DCGAN with random weights.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # a checkout need not be installed

from timing import Spread, interleaved

from qualitygate import timing
from qualitygate.checkpoints.load import load_generator
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.stage import GateStage
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.generators.passes import on_host, pixels
from qualitygate.policy.model import Calibration, Limit, Policy, Rule
from qualitygate.produce.request import Form
from qualitygate.produce.shards import encoding
from qualitygate.records.gate import Verdict

SEED = 1
REJECTED = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, help="random weights without it")
    parser.add_argument("--size", default=64, type=int, help="of the images of the DCGAN with random weights")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--ids", default=1024, type=int, help="ids of a shard")
    parser.add_argument("--rounds", default=5, type=int, help="rounds of every comparison; the median is shown")
    parser.add_argument("--out", type=Path, help="write OUT.json")
    options = parser.parse_args()
    generator = load_generator(options.checkpoint, options.device) if options.checkpoint else _random(options.size, options.device)
    stage = GateStage(generator, calibrate(generator, _policy()), _policy(), seed=SEED, as_pixels=True)
    document = measured(stage, options.ids, options.rounds)
    about = {
        "generator": generator.identity().name,
        "image": list(generator.image_shape),
        "device": _named(options.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": options.rounds,
    }
    text = json.dumps(about | document, indent=2)
    print(text)
    if options.out is not None:
        options.out.with_suffix(".json").write_text(text + "\n")


def measured(stage: GateStage, ids: int, rounds: int) -> dict[str, object]:
    """Seconds of an accepted image on each side, their ratio round by round, and where the gated side's time went.

    Every round makes other ids, the same on all sides.
    """
    total = (rounds + 1) * ids
    accepted = {int(one) for block in stage.blocks(range(total)) for one in block.latents.ids[list(block.images)]}
    sides = {"gated": _gated(stage), "filtered": _whole(stage, accepted), "ungated": _whole(stage, set(range(total)))}
    runs = {name: Side(make, ids) for name, make in sides.items()}
    timed = interleaved({name: side.shard for name, side in runs.items()}, rounds, stage.generator.device)
    gated = runs["gated"]
    return {
        "share_rejected": round(1.0 - gated.kept / total, 4),
        "milliseconds_per_accepted_image": {name: _rounded(timed.each(name, side.kept / side.shards), 1e3) for name, side in runs.items()},
        "gated_over_filtered": _rounded(timed.ratio("gated", "filtered")),
        "ids_per_second": {name: _rounded(timed.rate(name, ids)) for name in runs},
        "time_shares_of_gated": {name: round(seconds / gated.spent, 3) for name, seconds in gated.seconds.items()},
    }


Images = Iterator[tuple[int, np.ndarray]]
Make = Callable[[range], Images]


class Side:
    """Makes shards one way, each of other ids than the one before.

    Attributes:
        kept: images written so far.
        shards: shards made so far.
        seconds: where the time went.
        spent: all of it.
    """

    def __init__(self, make: Make, ids: int) -> None:
        self._make, self._ids = make, ids
        self.kept = self.shards = 0
        self.seconds: Counter[str] = Counter()
        self.spent = 0.0

    def shard(self) -> None:
        start = time.perf_counter()
        ids = range(self.shards * self._ids, (self.shards + 1) * self._ids)
        with tempfile.TemporaryDirectory() as folder, timing.collect() as seconds:
            with encoding(Form.WEBDATASET, Path(folder) / "shard.tar") as encoder:
                for sample, image in self._make(ids):
                    encoder.put(sample, image, {"id": sample})
                    self.kept += 1
        self.spent += time.perf_counter() - start
        self.shards += 1
        self.seconds.update(seconds + encoder.seconds)


def _gated(stage: GateStage) -> Make:
    def make(ids: range) -> Images:
        for block in stage.blocks(ids):
            for row, image in sorted(block.images.items()):
                yield int(block.latents.ids[row]), image

    return make


def _whole(stage: GateStage, accepted: set[int]) -> Make:
    """Every image is made; those that are not accepted are thrown away."""

    def make(ids: range) -> Images:
        for rows, images in stage.generator.image_batches(stage.latents(ids)):
            yield from ((one, image) for one, image in zip(ids[rows], on_host(pixels(images)).numpy(), strict=True) if one in accepted)

    return make


def _policy() -> Policy:
    rule = Rule(id="low_rate", score="low_rate_0.3", limit=Limit(quantile=1.0 - REJECTED), action=Verdict.REJECT)
    return Policy(calibration=Calibration(rate_samples=2000, score_samples=1000), rules=(rule,), correction=None)


def _random(size: int, device: torch.device) -> DCGAN:
    layers = size.bit_length() - 3
    units = [min(512, 32 << (layers - index)) for index in range(layers)]
    generator = DCGAN(latent_size=100, units=units, image_channels=3).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for index, weight in enumerate(generator.weight):
            taps = 1 if index == 0 else 4  # that meet at an output position
            weight.normal_(0.0, (2.0 / (taps * weight.shape[2])) ** 0.5, generator=random)
    return generator.to(device)


def _rounded(spread: Spread, factor: float = 1.0) -> dict[str, float]:
    return {name: float(f"{factor * value:.4g}") for name, value in asdict(spread).items()}


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
