"""Makes the pictures of the method pages again, from the face DCGAN of `make demo` and the digits of the tests.

    python docs/figures.py CHECKPOINT [--only cla screening] [--profile FOLDER] [--out docs/images]

Everything is seeded: the same checkpoint gives the same pictures. Most of the time goes into a calibration; with `--profile` it is kept in
a folder, and found there the next time. The package has to be installed, or its checkout on the PYTHONPATH.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from drawing.cla import cla_neuron, cla_ranked
from drawing.corrections import corrections
from drawing.defective_score import defective_score
from drawing.low_rate_neurons import low_rate_heat, low_rate_ranked, low_rate_rates
from drawing.metrics import metrics_balls, metrics_digits
from drawing.screening import screening_ladder
from drawing.subject import Subject, calibrated

from qualitygate import storage
from qualitygate.checkpoints.load import load_generator

HERE = Path(__file__).parent

FIGURES: dict[str, Callable[[Subject], bytes]] = {
    "low-rate-neurons-rates.png": low_rate_rates,
    "low-rate-neurons-ranked.jpg": low_rate_ranked,
    "low-rate-neurons-heat.jpg": low_rate_heat,
    "cla-neuron.png": cla_neuron,
    "cla-ranked.jpg": cla_ranked,
    "screening-ladder.png": screening_ladder,
    "defective-score-regions.png": defective_score,
    "corrections-methods.jpg": corrections,
    "metrics-balls.png": metrics_balls,
    "metrics-digits.png": metrics_digits,
}
"""What each picture is made by. A picture's name begins with that of its page."""
OTHERS = {"check.png": "the HTML page of `qualitygate check`"}
"""Pictures of the method pages that are made elsewhere, and by what."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="the face DCGAN: `make demo` fetches it")
    parser.add_argument("--only", nargs="+", default=[""], help="pictures whose names begin so, such as cla")
    parser.add_argument("--profile", type=Path, help="folder of the calibration, kept and found again")
    parser.add_argument("--out", type=Path, default=HERE / "images")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    generator = load_generator(options.checkpoint, device=options.device)
    subject = Subject(generator, partial(calibrated, generator, options.profile))
    for name, make in FIGURES.items():
        if name.startswith(tuple(options.only)):
            storage.write_bytes(options.out / name, make(subject))
            print(options.out / name)


if __name__ == "__main__":
    main()
