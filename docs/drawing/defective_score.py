"""The picture of the defective score, on a planted defect, whose mask is exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from PIL import Image
from torch import Tensor

from drawing.look import BLUE, GREEN, ORANGE, RED, blank, show
from drawing.subject import Subject
from qualitygate.gating.exhibit import render
from qualitygate.generators.base import sample_latents
from qualitygate.reports.style import INK, MUTED, dress, png
from qualitygate.testing.planted import Defect, plant
from qualitygate.units.defective_score import defective_scores, unit_thresholds

PLANTED_AT, SAMPLES = "8x8", 1_024


def defective_score(subject: Subject) -> bytes:
    """A planted defect, whose mask is exact: a unit that covers it, one that does not, and the score of all units of the layer."""
    planted = plant(subject.generator, Defect(layer=PLANTED_AT, units=6, share=0.05, mark="blob"), seed=4)
    truth, layer = planted.truth, subject.generator.layer(PLANTED_AT).index
    latents = sample_latents(subject.generator, range(SAMPLES), 1)
    thresholds = unit_thresholds(planted.generator, latents, [layer])
    broken = latents[torch.nonzero(truth.defective(latents))[:, 0].numpy()]
    mask = truth.pixels.float()
    overlap = defective_scores(planted.generator, broken, mask.expand(len(broken), -1, -1), thresholds)
    scores = overlap.mean.of(layer)
    _, _, activation = next(planted.generator.activations(broken[:1], [layer]))
    regions = F.interpolate((activation > thresholds[layer][:, None, None]).float(), size=mask.shape, mode="bilinear")[0]
    covers = int(np.argmax(scores))
    elsewhere = int((regions.flatten(1).sum(dim=1) * (overlap.overlap[layer][0] < 0.05)).argmax())
    image = render(planted.generator, broken[:1])[0]
    figure = blank(4.0)
    *cells, bars = figure.subplots(1, 5, width_ratios=(1, 1, 1, 1, 1.5))
    show(cells[0], image, "an image with the defect")
    show(cells[1], _regions(image, mask > 0, torch.zeros_like(mask) > 0), "its mask L")
    for cell, unit in zip(cells[2:], (covers, elsewhere), strict=True):
        show(
            cell,
            _regions(image, mask > 0, regions[unit] > 0.5),
            f"A of unit {unit}: DS {scores[unit]:.2f},\nin this image IoU {overlap.overlap[layer][0, unit]:.2f}",
        )
    _bars(bars, scores, truth.units[layer])
    words = {ORANGE: "mask alone", BLUE: "region alone", GREEN: "both"}
    figure.legend(
        handles=[Patch(color=color, label=word) for color, word in words.items()],
        loc="outside lower left",
        ncols=3,
        frameon=False,
        fontsize=12,
        labelcolor=INK,
    )
    return png(figure)


def _regions(image: np.ndarray, mask: Tensor, region: Tensor) -> np.ndarray:
    """Mask and region as colours over the image in grey."""
    grey = np.repeat(np.asarray(Image.fromarray(image).convert("L"))[:, :, None], 3, axis=2).astype(np.float64)
    for where, color in ((mask & ~region, ORANGE), (region & ~mask, BLUE), (mask & region, GREEN)):
        grey[where.numpy()] = 0.35 * grey[where.numpy()] + 0.65 * 255 * np.array(to_rgb(color))
    return np.rint(grey).astype(np.uint8)


def _bars(axes: Axes, scores: np.ndarray, planted: Sequence[int]) -> None:
    order = np.argsort(-scores, kind="stable")[:40]
    axes.bar(range(len(order)), scores[order], color=[RED if unit in planted else MUTED for unit in order])
    axes.set_title(f"the {len(order)} highest of {len(scores)} units;\norange-red: the {len(planted)} planted ones", fontsize=12, color=INK)
    dress(axes, "units, by rank", "defective score")
