"""Plants defects in a checkpoint and measures every score, unit score and correction against the exact truth.

    python benchmarks/planted.py CHECKPOINT    # writes planted.json and planted.md beside this file
    python benchmarks/planted.py               # writes planted.md again from planted.json

Progress goes to stderr, the page to stdout too. Everything is seeded. About half an hour on two idle cores for the face DCGAN.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from planted_rows.columns import all_columns
from planted_rows.grid import GRID, Case
from planted_rows.scene import Scene, Sizes
from planted_rows.table import page

from qualitygate.checkpoints.load import load_checkpoint
from qualitygate.errors import InputError
from qualitygate.features.extractor import SpatialExtractor
from qualitygate.features.registry import make_extractor
from qualitygate.storage import write_bytes
from qualitygate.testing.planted import plant


def measure(path: str, device: str, case: Case, sizes: Sizes, extractor: str) -> dict[str, Any]:
    """All columns of one planted checkpoint."""
    torch.set_num_threads(1)  # the checkpoints of the grid run side by side
    checkpoint = load_checkpoint(path, device)
    planted = plant(checkpoint.generator, case.defect, case.seed)
    features = make_extractor(extractor, device=device)
    if not isinstance(features, SpatialExtractor):
        raise InputError("Grad-CAM needs features that have a place in the image", features.key, "a spatial extractor")
    return all_columns(Scene(planted, checkpoint.discriminator, sizes, features))


def run(path: str, device: str, cases: list[Case], sizes: Sizes, extractor: str, workers: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and columns of each checkpoint, as they are finished."""
    start = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        tasks = {pool.submit(measure, path, device, case, sizes, extractor): case.name for case in cases}
        for done, task in enumerate(as_completed(tasks), start=1):
            print(f"{done}/{len(cases)} {tasks[task]}, {time.monotonic() - start:.0f} s", file=sys.stderr)
            yield tasks[task], task.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file of the base generator; if left out, only the page is made")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""), help="where to write, without suffix")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--extractor", default="random-vgg16-64", help="features of the classifier and of FID: random-vgg16-SIZE")
    parser.add_argument("--workers", type=int, default=2, help="checkpoints measured side by side")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in GRID], help="measure these, keep the other results")
    parser.add_argument("--quick", action="store_true", help="a few samples: to see that everything runs")
    options = parser.parse_args()
    stored = options.out.with_suffix(".json")
    if options.checkpoint:
        sizes = Sizes(512, 512, 16, 64, 2, 2, 16) if options.quick else Sizes()
        origin = load_checkpoint(options.checkpoint).generator.identity()
        facts = {"checkpoint": origin.name, "sha256": origin.sha256, "extractor": options.extractor, "sizes": asdict(sizes)}
        kept = _kept(stored, facts) if options.only else {}
        cases = [case for case in GRID if not options.only or case.name in options.only]
        made = run(options.checkpoint, options.device, cases, sizes, options.extractor, options.workers)
        for name, columns in made:
            kept[name] = _without_nan(columns)
            results = {case.name: kept[case.name] for case in GRID if case.name in kept}
            write_bytes(stored, json.dumps({**facts, "results": results}, indent=1, allow_nan=False).encode())
    document = json.loads(stored.read_bytes())
    text = page(document["results"], document)
    write_bytes(options.out.with_suffix(".md"), text.encode())
    print(text)


def _kept(stored: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Results of an earlier run over the same checkpoint with the same sizes."""
    if not stored.exists():
        return {}
    document = json.loads(stored.read_bytes())
    return document["results"] if all(document.get(name) == value for name, value in facts.items()) else {}


def _without_nan(node: Any) -> Any:
    """Not measured is null in JSON."""
    if isinstance(node, dict):
        return {name: _without_nan(value) for name, value in node.items()}
    return None if isinstance(node, float) and math.isnan(node) else node


if __name__ == "__main__":
    main()
