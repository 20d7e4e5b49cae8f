"""What an image costs to encode: milliseconds of one core, and bytes, in every format.

    python benchmarks/encoding.py [CHECKPOINT] [--out encoding]

The images are of a StyleGAN2 with random weights, narrow and brought to the contrast of photographs: fine texture, hard to compress; and
the checkpoint's, enlarged: smooth, easy to compress. Those of a trained generator of that size lie between the two.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # a checkout need not be installed

from subjects import from_checkpoint, random_stylegan2
from timing import Spread

from qualitygate.generators.base import sample_latents
from qualitygate.generators.passes import pixels, scored_pass
from qualitygate.records.images import ImageEncoding, ImageFormat
from qualitygate.storage import encode

SIZES = (256, 1024)
SEED = 1
CONTRAST = 0.5  # standard deviation of the values, of ±1
ENCODINGS = (
    *(ImageEncoding(level=level) for level in (1, 6, 9)),
    *(ImageEncoding(format=one, level=None, quality=quality) for one in (ImageFormat.WEBP, ImageFormat.JPEG) for quality in (80, 95)),
)


@dataclass(frozen=True)
class Row:
    """One kind of images in one format."""

    images: str
    size: int
    encoding: str
    milliseconds: Spread
    kilobytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, help="file of a generator whose images are enlarged; none without it")
    parser.add_argument("--images", default=4, type=int, help="of each kind and size")
    parser.add_argument("--rounds", default=5, type=int, help="the median is shown")
    parser.add_argument("--sizes", default=SIZES, type=int, nargs="+", help="powers of 2")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    options = parser.parse_args()
    rows = [
        row
        for size in options.sizes
        for name, images in subjects(options.checkpoint, size, options.images)
        for row in measured(name, images, options.rounds)
    ]
    about = {"machine": platform.machine(), "Pillow": PIL.__version__, "images": options.images, "rounds": options.rounds}
    text = _markdown(rows, about)
    print(text)
    if options.out is not None:
        options.out.with_suffix(".md").write_text(text)
        options.out.with_suffix(".json").write_text(json.dumps(about | {"rows": [asdict(row) for row in rows]}, indent=2) + "\n")


def subjects(checkpoint: Path | None, size: int, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and images, uint8 (count, size, size, channels)."""
    units = [max(16, min(64, 4096 // edge)) for edge in (4 << block for block in range(size.bit_length() - 2))]
    with scored_pass():
        generator = random_stylegan2(64, units)
        for name, parameter in generator.named_parameters():
            if name.startswith("to_rgb") and "style" not in name:
                parameter *= 0.01  # far from the ends of the range, at which images are cut off
        images = generator(sample_latents(generator, range(count), SEED))
        mean, deviation = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
        yield "StyleGAN2", _host((images - mean) / deviation * CONTRAST)
        if checkpoint is not None:
            generator = from_checkpoint(checkpoint, torch.device("cpu"))
            images = generator(sample_latents(generator, range(count), SEED))
            larger = torch.nn.functional.interpolate(images, size=(size, size), mode="bicubic", align_corners=False)
            yield f"{generator.identity().name}, enlarged", _host(larger)


def measured(name: str, images: np.ndarray, rounds: int) -> Iterator[Row]:
    """Every format in turn once a round: time of this thread alone, whatever else the machine does."""
    seconds: dict[ImageEncoding, list[float]] = {one: [] for one in ENCODINGS}
    for _ in range(rounds):
        for one in ENCODINGS:
            start = time.thread_time()
            for image in images:
                encode(image, one)
            seconds[one].append((time.thread_time() - start) / len(images))
    for one in ENCODINGS:
        size = float(np.mean([len(encode(image, one)) for image in images]))
        yield Row(name, images.shape[1], str(one), Spread.of(1e3 * np.array(seconds[one])), size / 1e3)


def _host(images: Tensor) -> np.ndarray:
    made: np.ndarray = pixels(images).cpu().numpy()
    return made


def _markdown(rows: list[Row], about: dict[str, object]) -> str:
    """A row for each format, columns for each kind of images and size."""
    kinds = list(dict.fromkeys((row.size, row.images) for row in rows))
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    lines.append(f"| | {' | '.join(f'{images}, {size}²' for size, images in kinds)} |")
    lines.append(f"| --- {'| ---: ' * len(kinds)}|")
    for encoding in map(str, ENCODINGS):
        of = {(row.size, row.images): row for row in rows if row.encoding == encoding}
        cells = (f"{of[kind].milliseconds.median:.3g} ms, {of[kind].kilobytes:,.0f} kB" for kind in kinds)
        lines.append(f"| {encoding} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
