"""Pictures of the metrics of sets: what they count, and a real run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from torch import Tensor

from drawing.look import BLUE, GREEN, RED, SKY, blank, few_colours
from drawing.subject import Subject
from qualitygate.checkpoints.load import load_generator
from qualitygate.features.images import digits_images
from qualitygate.features.registry import make_extractor
from qualitygate.gating.calibrate import calibrate, default_policy
from qualitygate.gating.stage import GateStage
from qualitygate.metrics.neighbourhoods import neighbour_radii, neighbourhoods
from qualitygate.policy.model import Policy
from qualitygate.reports.study_figures import precision_recall_figure
from qualitygate.reports.style import FAINT, INK, PAPER, png
from qualitygate.studies.metrics import MetricsRequest
from qualitygate.studies.metrics.run import MetricsInputs, measure

DIGITS = Path(__file__).parents[2] / "tests" / "data" / "digits" / "snapshot-003000.safetensors"


def metrics_balls(_: Subject) -> bytes:
    """Precision, recall and realism of points in the plane, where neighbourhoods can be seen; the numbers are those of the package."""
    random = np.random.default_rng(3)
    real, generated = (torch.from_numpy(_ring(random, *one)) for one in ((60, 2.0), (32, 1.0)))
    generated = torch.cat((generated, torch.from_numpy(random.uniform(-0.5, 0.5, (8, 2)))))
    around_real, around_generated = neighbour_radii(real), neighbour_radii(generated)
    found = neighbourhoods(generated, real, around_real)
    inside, reached = found.inside > 0, found.reached[0]
    figure = blank(5.6)
    first, second, third = figure.subplots(1, 3)
    _balls(first, real, around_real, BLUE)
    _points(first, (real, BLUE, "real"), (generated[inside], GREEN, "generated, inside"), (generated[~inside], RED, "outside"))
    _share(first, inside, "generated ones\nlie in a real one's ball: precision")
    _balls(second, generated, around_generated, SKY)
    _points(second, (generated, SKY, "generated"), (real[reached], GREEN, "real, reached"), (real[~reached], RED, "missed"))
    _share(second, reached, "real ones\nlie in a generated one's ball: recall")
    counts = around_real <= around_real.quantile(0.5)
    _balls(third, real[counts], around_real[counts], BLUE)
    _points(third, (real, FAINT, "real"))
    shown = third.scatter(
        *generated.T, c=found.realism, cmap="RdYlGn", vmin=0, vmax=2, s=50, edgecolors=INK, linewidths=0.6, label="generated", zorder=3
    )
    figure.colorbar(shown, ax=third, shrink=0.75)
    third.set_title("realism of each generated one:\nat least 1 inside a ball of the smaller half", fontsize=13, color=INK)
    for axes in (first, second, third):
        axes.set(xticks=[], yticks=[], aspect="equal", xlim=(-1.75, 1.75), ylim=(-1.75, 1.75), facecolor=PAPER)
        axes.legend(
            frameon=False,
            fontsize=12,
            labelcolor=INK,
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            ncols=3,
            handletextpad=0.1,
            columnspacing=1.0,
        )
    return few_colours(png(figure))


def _ring(random: np.random.Generator, count: int, half_turns: float) -> np.ndarray:
    angle = random.uniform(0, half_turns * np.pi, count)
    return np.column_stack((np.cos(angle), np.sin(angle))) + random.normal(0, 0.13, (count, 2))


def _share(axes: Axes, yes: Tensor, words: str) -> None:
    axes.set_title(f"{int(yes.sum())} of {len(yes)} {words} {yes.double().mean():.2f}", fontsize=13, color=INK)


def _balls(axes: Axes, centres: Tensor, radii: Tensor, color: str) -> None:
    for centre, radius in zip(centres.tolist(), radii.tolist(), strict=True):
        axes.add_patch(Circle(tuple(centre), radius, facecolor=color, alpha=0.12, edgecolor=color, linewidth=0.4))


def _points(axes: Axes, *some: tuple[Tensor, str, str]) -> None:
    for points, color, word in some:
        axes.plot(*points.T, "o", color=color, markersize=6, markeredgecolor=INK, markeredgewidth=0.4, label=word)


def metrics_digits(_: Subject) -> bytes:
    """Precision against recall of the digits: groups by low-rate neurons, and truncation. Needs no checkpoint but that of the tests."""
    generator = load_generator(DIGITS, device="cpu")
    document = default_policy(generator.family).model_dump()
    document["calibration"] |= {"rate_samples": 10_000, "score_samples": 2_000}
    policy = Policy.model_validate(document)
    stage = GateStage(generator, calibrate(generator, policy), policy, seed=1)
    inputs = MetricsInputs(generator, extractor=make_extractor("random-vgg16-32"), real=digits_images(32), stage=stage)
    drawn = precision_recall_figure(measure(inputs, MetricsRequest(checkpoint=DIGITS.name, samples=1000)).report)
    assert drawn is not None
    return drawn
