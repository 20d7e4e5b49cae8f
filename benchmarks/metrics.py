"""Metrics of sets against the packages that people use for them, both sides in one run.

    python benchmarks/metrics.py [--samples 10000] [--large 30000] [--threads 1 2] [--out benchmarks/metrics]

Needs `pip install prdc torchmetrics` beside the package's dependencies, in an environment of its own. Precision, recall, density and
coverage are held against prdc, FID against torchmetrics, on the same made-up features. Every line is a process of its own, held on as many
cores as it has threads: CPU seconds of all its threads, seconds by the clock, and peak memory beyond the features (Linux alone tells). Ours
are measured from nothing: radii and statistics of the real set included. ``--out metrics`` writes ``metrics.md``, and every line when it is
known to ``metrics.json``: what that holds is not measured again, so that a run can go on after a stop.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # a checkout need not be installed

WIDTH = 2048  # of Inception's features
BALLS = ("precision", "recall", "density", "coverage")
_BATCH = 1024
PEERS = {"prdc": "prdc", "torchmetrics": "torchmetrics, FID"}
OURS = {
    "balls": "ours, realism as well",
    "balls_intervals": "ours, realism as well, with intervals",
    "fid": "ours, FID",
    "fid_interval": "ours, FID with its interval",
}
COMPARED = (  # side, what it is held against, goal
    ("balls", "prdc", "at most 0.6"),
    ("balls_intervals", "prdc", "at most 0.6"),
    ("fid", "torchmetrics", "at most 1"),
    ("fid_interval", "fid", "at most 2"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", default=10_000, type=int, help="real and generated samples of a comparison")
    parser.add_argument("--large", default=30_000, type=int, help="samples that ours are measured with besides, in one thread; 0: none")
    parser.add_argument("--threads", default=[1, 2], type=int, nargs="+")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json")
    parser.add_argument("--side", choices=(*PEERS, *OURS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        print(json.dumps(measured(options.side, options.samples)))
        return
    if missing := [name for name in PEERS if importlib.util.find_spec(name) is None]:
        sys.exit(f"{' and '.join(missing)} cannot be imported: there would be nothing to compare with. pip install {' '.join(missing)}")
    wanted = [(side, options.samples, threads) for threads in options.threads for side in (*PEERS, *OURS)]
    wanted += [(side, options.large, 1) for side in ("balls_intervals", "fid_interval") if options.large]
    kept = None if options.out is None else options.out.with_suffix(".json")
    known = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
    for one in wanted:
        if str(one) not in known:
            known[str(one)] = in_a_process(*one)
            if kept is not None:
                kept.write_text(json.dumps(known, indent=1) + "\n")
    found = {one: known[str(one)] for one in wanted}
    table = "\n".join(lines(found, options.samples)) + "\n"
    print(table, end="")
    if options.out is not None:
        options.out.with_suffix(".md").write_text(table)


def in_a_process(side: str, samples: int, threads: int) -> dict[str, Any]:
    """What `measured` says of a side that has so many threads and cores."""
    print(f"{side}, {samples:,} samples, {threads} threads …", file=sys.stderr)
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    command = [sys.executable, __file__, "--side", side, "--samples", str(samples)]
    cores = set(sorted(os.sched_getaffinity(0))[:threads])
    done = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    return json.loads(done.stdout.splitlines()[-1])


def measured(side: str, samples: int) -> dict[str, Any]:
    """Values, CPU seconds, seconds and MiB of one side; what it imports and holds before does not count."""
    run = {"prdc": prdc_side, "torchmetrics": torchmetrics_side}.get(side) or (lambda *sets: our_side(side, *sets))
    run(*(one[:, :32].copy() for one in made_up(300)))  # imports, first calls
    real, generated = made_up(samples)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
    before, cpu, clock = _peak(), time.process_time(), time.perf_counter()
    values = run(real, generated)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    return {"values": values, "cpu": cpu, "clock": clock, "mib": _peak() - before}


def made_up(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Real and generated features, float32 (N, 2048): at least 0, correlated, and of a spectrum that falls."""
    random = np.random.default_rng(0)
    mixing = (random.normal(size=(256, WIDTH)) * np.linspace(1.0, 0.1, 256)[:, None]).astype(np.float32)
    sets = []
    for scale in (1.0, 0.95):
        features = np.empty((samples, WIDTH), dtype=np.float32)
        for start in range(0, samples, _BATCH):
            part = features[start : start + _BATCH]
            part[:] = random.standard_normal((len(part), 256), dtype=np.float32) @ mixing * (scale / 10.0)
            part += 0.3 * random.standard_normal(part.shape, dtype=np.float32)
        sets.append(np.maximum(features, 0.0, out=features))
    return sets[0], sets[1]


def prdc_side(real: np.ndarray, generated: np.ndarray) -> dict[str, float]:
    from prdc import compute_prdc

    return {name: float(value) for name, value in compute_prdc(real, generated, nearest_k=3).items()}


def torchmetrics_side(real: np.ndarray, generated: np.ndarray) -> dict[str, float]:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    identity = torch.nn.Identity()
    identity.num_features = real.shape[1]
    metric = FrechetInceptionDistance(feature=identity)
    for features, of_real in ((real, True), (generated, False)):
        for part in torch.from_numpy(features).split(_BATCH):
            metric.update(part, real=of_real)
    return {"fid": float(metric.compute())}


def our_side(side: str, real: np.ndarray, generated: np.ndarray) -> dict[str, float]:
    import torch

    from qualitygate.metrics.estimate import Resampling
    from qualitygate.metrics.measured_set import MeasuredSet, RealSet
    from qualitygate.metrics.metric import set_metric

    measured = MeasuredSet(len(generated), torch.from_numpy(generated), real=RealSet("made up", "", torch.from_numpy(real)))
    how = Resampling() if side.endswith(("interval", "intervals")) else None
    names = ("fid",) if side.startswith("fid") else (*BALLS, "realism")
    return {name: set_metric(name).compute(measured.group(), how).value for name in names}


def lines(found: dict[tuple[str, int, int], dict[str, Any]], samples: int) -> Iterator[str]:
    import torch

    yield f"{WIDTH:,} features, k = 3, CPU, torch {torch.__version__}; written by `python benchmarks/metrics.py`."
    yield ""
    yield "| what | samples on each side | threads | CPU s | s | peak memory beyond the features, MiB |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for (side, count, threads), one in found.items():
        name = (PEERS | OURS)[side]
        yield f"| {name} | {count:,} | {threads} | {one['cpu']:.1f} | {one['clock']:.1f} | {one['mib']:,.0f} |"
    yield ""
    yield f"| {samples:,} samples: CPU time of | over that of | threads | ratio | goal | largest difference of a value |"
    yield "| --- | --- | ---: | ---: | --- | ---: |"
    for side, other, goal in COMPARED:
        for threads in sorted({threads for _, _, threads in found}):
            ours, theirs = found[side, samples, threads], found[other, samples, threads]
            apart = max(abs(value - ours["values"][name]) / abs(value) for name, value in theirs["values"].items())
            ratio = ours["cpu"] / theirs["cpu"]
            yield f"| {OURS[side]} | {(PEERS | OURS)[other]} | {threads} | {ratio:.2f} | {goal} | {100.0 * apart:.2g} % |"
    yield ""
    yield "The peers' CPU time is that of values alone. torchmetrics divides covariances by N − 1, we by N."


def _peak() -> float:
    """MiB that this process held at most."""
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024


if __name__ == "__main__":
    main()
