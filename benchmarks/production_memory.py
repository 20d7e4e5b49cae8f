"""Memory of a production run against the number of ids: the smallest DCGAN on the CPU, block by block.

    python benchmarks/production_memory.py [--ids 100000] [--out memory.json]

Prints ids done and resident memory in MiB; what grows is what a set ten times as large would need more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # a checkout need not be installed

from qualitygate.checkpoints.load import load_generator
from qualitygate.checkpoints.save import save_generator
from qualitygate.gating.calibrate import calibrate
from qualitygate.generators.families.dcgan import DCGAN
from qualitygate.generators.passes import Progress, Reporter
from qualitygate.policy.model import Calibration, Policy
from qualitygate.produce.executor import InProcess
from qualitygate.produce.request import Form
from qualitygate.produce.run import plan, produce
from qualitygate.produce.worker import GateSource, Job


class Curve(Reporter):
    """Resident memory after every block of ids, in the first phase."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Progress]:
        yield self._progress

    def _progress(self, count: int) -> None:
        ids = count + (self.points[-1][0] if self.points else 0)
        self.points.append((ids, round(_resident(), 1)))
        print(f"{ids:>9,} ids  {self.points[-1][1]:7.1f} MiB  {time.perf_counter() - self._start:6.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", default=100_000, type=int)
    parser.add_argument("--shard-size", default=2048, type=int)
    parser.add_argument("--folder", dest="shards", action="store_false", help="one folder instead of shards")
    parser.add_argument("--out", type=Path, help="write the curve as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _source(folder)
        form = Form.WEBDATASET if options.shards else None
        asked = plan(source.open("cpu"), ids=range(options.ids), shard_size=options.shard_size, form=form)
        job, curve = Job(source, asked, str(folder / "set")), Curve()
        summary = produce(InProcess(job, "cpu"), curve)
        print(f"{summary.samples:,} ids, {summary.accepted + summary.corrected:,} images")
    if options.out is not None:
        options.out.write_text(json.dumps(curve.points))


def _source(folder: Path) -> GateSource:
    """A DCGAN of 16×16 pixels with random weights, and its profile."""
    generator = DCGAN(latent_size=8, units=[8, 6], image_channels=1).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight, bias in zip(generator.weight, generator.bias, strict=True):
            weight.normal_(0.0, 0.5, generator=random)
            bias.normal_(-0.5, 0.5, generator=random)
    checkpoint = folder / "model.safetensors"
    save_generator(generator, checkpoint)
    calibrate(load_generator(checkpoint), Policy(calibration=Calibration(rate_samples=2000, score_samples=2000), batch=())).save(
        folder / "profile"
    )
    return GateSource(partial(load_generator, checkpoint), checkpoint, folder / "profile", None, seed=1)


def _resident() -> float:
    """MiB of this process that are in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main()
