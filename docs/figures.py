"""Makes the pictures of the method pages again, from the face DCGAN of `make demo` and the digits of the tests.

    python docs/figures.py CHECKPOINT [--only cla] [--profile FOLDER] [--out docs/images]

Everything is seeded: the same checkpoint gives the same pictures. Most of the time goes into a calibration; with `--profile` it is kept in
a folder, and found there the next time.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle
from PIL import Image
from torch import Tensor

import qualitygate
from qualitygate import names, storage
from qualitygate.checkpoints.load import load_generator
from qualitygate.corrections.images import corrected_images
from qualitygate.dynamics.pattern import axis_pattern
from qualitygate.features.images import digits_images
from qualitygate.features.registry import make_extractor
from qualitygate.gating.cost import with_curvature
from qualitygate.gating.curvature import fitted_screen, free_evidence, rung_column
from qualitygate.gating.exhibit import made_again
from qualitygate.gating.methods import method_of
from qualitygate.gating.profile import Profile, load_profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Generator
from qualitygate.generators.execution import read_layers, sample_latents, scored_pass
from qualitygate.latents import Latents
from qualitygate.metrics.manifold import balls_around, neighbour_radii, recall
from qualitygate.patterns import AxisPattern, Neuron
from qualitygate.policy.corrections import METHODS
from qualitygate.policy.model import default_policy
from qualitygate.production.metrics_run import Request, Tools, measure
from qualitygate.reports.contact_sheet import comparison_sheet
from qualitygate.reports.figures import DPI, dress, png
from qualitygate.reports.lettering import number
from qualitygate.reports.metric_figures import trade_figure
from qualitygate.reports.palette import FAINT, INK, LINE_COLORS, MUTED, PAPER
from qualitygate.reports.pictures import blend_heat, picture
from qualitygate.scores.local_activation import DIVISIONS, local_activation
from qualitygate.scores.low_rate import low_rate_heatmap
from qualitygate.scores.screening import Bounds, ladder
from qualitygate.testing.planted import Defect, Planted, plant
from qualitygate.units.compare import rank_correlation
from qualitygate.units.defective_score import defective_scores
from qualitygate.units.thresholds import unit_thresholds

HERE = Path(__file__).parent
DIGITS = HERE.parent / "tests" / "data" / "digits" / "snapshot-003000.safetensors"
WIDE = 14.0
"""Inches, so 1,400 pixels."""
BLUE, RED, GREEN, PINK, ORANGE, SKY = LINE_COLORS


@dataclass(frozen=True)
class Subject:
    """A checkpoint, and what calibration learned of it.

    Attributes:
        generator: the generator.
        learned: the profile, made where it is first needed.
    """

    generator: Generator
    learned: Callable[[], Profile]

    @cached_property
    def profile(self) -> Profile:
        return self.learned()

    @property
    def layer(self) -> int:
        """Where CLA is scored."""
        return self.generator.presets.curvature[0]

    @property
    def scored(self) -> tuple[int, ...]:
        """Layers whose low-rate neurons are counted."""
        return self.generator.presets.low_rate

    @property
    def rate(self) -> float:
        """R of the default rule."""
        return self.profile.policy.headline_rate

    def column(self, name: str) -> np.ndarray:
        """A score of the calibration's samples; NaN for those that were not scored."""
        return self.profile.columns(self.profile.policy)[name]

    def latents(self, rows: Iterable[int]) -> Latents:
        """The calibration's samples of these rows."""
        settings = self.profile.info.calibration
        return sample_latents(self.generator, [settings.rate_samples + int(row) for row in rows], settings.seed)

    def ranked(self, name: str) -> np.ndarray:
        """Rows of the calibration's samples that have the score, the lowest first."""
        values = self.column(name)
        return np.argsort(values, kind="stable")[: np.isfinite(values).sum()]


def calibrated(generator: Generator, folder: Path | None) -> Profile:
    """The profile in the folder, or a new one, which is left there."""
    if folder is not None and folder.exists():
        profile = load_profile(folder)
        profile.check_generator(generator)
        return profile
    profile = qualitygate.calibrate(generator, with_curvature(default_policy(generator.family), generator.presets.curvature[0]))
    if folder is not None:
        profile.save(folder)
    return profile


# what every picture needs


def blank(height: float) -> Figure:
    return Figure(figsize=(WIDE, height), dpi=DPI, facecolor=PAPER, layout="constrained")


def jpeg(drawn: Image.Image | bytes) -> bytes:
    image = drawn if isinstance(drawn, Image.Image) else Image.open(io.BytesIO(drawn))
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()


def show(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """An image without ticks, its pixels as they are."""
    axes.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=12, color=INK)


def key(axes: Axes, **place: object) -> None:
    axes.legend(frameon=True, facecolor=PAPER, edgecolor=FAINT, fontsize=11, labelcolor=INK, **place)


def below(figure: Figure, axes: Axes) -> None:
    """One key to all panels, below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=12, labelcolor=INK)


def ranked_faces(subject: Subject, name: str, what: str, limit: float | None = None) -> bytes:
    """Distribution of a score, and below it samples at every tenth of the ranking: nobody chose them."""
    rows, values = subject.ranked(name), subject.column(name)
    tenths = np.linspace(0, 1, 11)
    columns = [rows[round(share * (len(rows) - 3)) :][:3] for share in tenths]
    images = made_again(subject.generator, subject.latents(np.concatenate(columns)))
    figure = blank(6.6)
    above, faces = figure.subplots(2, 1, height_ratios=(1, 2.2))
    above.hist(values[rows], 80, color=BLUE)
    if limit is not None:
        above.axvline(limit, color=RED, linewidth=2)
        above.annotate(f"limit of the default rule: {number(limit)}", (limit, 0.92), xycoords=("data", "axes fraction"), color=RED,
                       xytext=(8, 0), textcoords="offset points", fontsize=12, va="top")  # fmt: skip
    dress(above, f"{what}, {len(rows):,} samples", "samples")
    tiles = [np.asarray(picture(image, 128)) for image in images]
    gap = np.full((4, 128, 3), 255, dtype=np.uint8)
    strips = [np.vstack([part for tile in tiles[3 * at : 3 * at + 3] for part in (tile, gap)]) for at in range(len(columns))]
    between = np.full((len(strips[0]), 6, 3), 255, dtype=np.uint8)
    faces.imshow(np.hstack([part for strip in strips for part in (strip, between)]), interpolation="bilinear")
    words = ["lowest", *(f"{share:.0%}" for share in tenths[1:-1]), "highest"]
    faces.set_xticks([64 + 134 * at for at in range(len(columns))],
                     [f"{word}\n{number(values[some[1]])}" for word, some in zip(words, columns, strict=True)])  # fmt: skip
    faces.set(yticks=[])
    faces.tick_params(length=0, labelsize=11, colors=INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    faces.set_frame_on(False)
    return jpeg(png(figure))


# low-rate neurons


def rates_of_layers(subject: Subject) -> bytes:
    """How often neurons fire, layer by layer."""
    figure = blank(3.6)
    for axes, layer in zip(figure.subplots(1, len(subject.scored), sharey=True), subject.scored, strict=True):
        rates = subject.profile.rates.rates[layer].flatten().numpy()
        axes.axvspan(0, subject.rate, color=ORANGE, alpha=0.3, linewidth=0, label=f"low-rate at R = {subject.rate:g}")
        axes.hist(rates, np.linspace(0, 1, 51).tolist(), weights=np.full(len(rates), 1 / len(rates)), color=BLUE)
        share = subject.profile.rates.low_rate_share(layer, subject.rate)
        where = subject.generator.layers[layer]
        axes.set_title(f"layer {layer}, {where.height}×{where.width}: {len(rates):,} neurons, {share:.1%} low-rate",
                       fontsize=12, color=INK)  # fmt: skip
        axes.set_xlim(0, 1)
        dress(axes, "activation rate", "share of the neurons" if not layer else "")
        if not layer:
            key(axes)
    return png(figure)


def low_rate_ranked(subject: Subject) -> bytes:
    limits = subject.profile.limits(subject.profile.policy)
    limit = next(rule.limit for rule in limits.rules if rule.score == names.low_rate(subject.rate))
    return ranked_faces(subject, names.low_rate(subject.rate), f"active low-rate neurons at R = {subject.rate:g}", limit)


def low_rate_heat(subject: Subject) -> bytes:
    """Where low-rate neurons fire, in the samples with the fewest and the most of them."""
    rows = subject.ranked(names.low_rate(subject.rate))
    chosen = np.concatenate((rows[:5], rows[-5:]))
    latents = subject.latents(chosen)
    heat = low_rate_heatmap(subject.generator, latents, subject.profile.rates, subject.rate, subject.scored).numpy()
    images = made_again(subject.generator, latents)
    heated = [np.asarray(blend_heat(picture(image, 112), one, heat.max())) for image, one in zip(images, heat, strict=True)]
    counts = subject.column(names.low_rate(subject.rate))[chosen]
    sheet = comparison_sheet([f"{count:,.0f}" for count in counts], {"generated": images, "low-rate": heated},
                             f"Fewest and most of {len(rows):,} samples: where neurons fire that rarely fire", scale_to=112)  # fmt: skip


# CLA


def cla_neuron(subject: Subject) -> bytes:
    """A concave neuron of the sample with the highest CLA and a flat one of that with the lowest: the formula, drawn."""
    rows = subject.ranked(names.cla(subject.layer))[[-1, 0]]
    latents = subject.latents(rows)
    local = local_activation(subject.generator, latents, [subject.layer])
    activation, curvature = local.activation[subject.layer], local.curvature[subject.layer]
    concave = _neuron(subject.layer, curvature[0])
    alike = (activation[1] - activation[0][_place(concave)]).abs() < 0.2 * activation[0][_place(concave)]
    flat = _neuron(subject.layer, torch.where(alike, curvature[1].abs(), torch.inf))
    figure = blank(4.4)
    cells = figure.subplots(1, 4, width_ratios=(1, 2.3, 1, 2.3))
    pairs = zip(("the highest CLA", "the lowest CLA"), (concave, flat), (_most_concave, _flattest), made_again(subject.generator, latents),
                strict=True)  # fmt: skip
    for row, (word, neuron, choose, image) in enumerate(pairs):
        score = subject.column(names.cla(subject.layer))[rows[row]]
        show(cells[2 * row], image, f"{word} of\n{len(subject.ranked(names.cla(subject.layer))):,} samples: {score:.1f}")
        _frame(cells[2 * row], neuron, subject.generator.layers[subject.layer].height, image.shape[0])
        along = axis_pattern(subject.generator, latents[row : row + 1], neuron)
        _secants(cells[2 * row + 1], along.rows([choose(along)]), float(along.curvature.mean()))
    top = max(cell.get_ylim()[1] for cell in cells[1::2])
    for cell in cells[1::2]:
        cell.set_ylim(-0.3 * top, top)
    below(figure, cells[1])
    return png(figure)


def _neuron(layer: int, least: Tensor) -> Neuron:
    """The neuron with the least value of (units, height, width)."""
    return Neuron(layer, *(int(at) for at in np.unravel_index(int(least.argmin()), tuple(least.shape))))


def _place(neuron: Neuron) -> tuple[int, int, int]:
    return neuron.unit, neuron.y, neuron.x


def _most_concave(along: AxisPattern) -> int:
    """Of the axes with room to write between the sample and its change points."""
    step = 2 * along.offsets[-1] / DIVISIONS
    return int(np.argmin(np.where(np.minimum(-along.left, along.right) > step, along.curvature, np.inf)))


def _flattest(along: AxisPattern) -> int:
    """Of the axes along which the activation changes, but not to more than twice what it is at the sample."""
    tame = (np.ptp(along.values, axis=1) > 0.5 * along.at_sample) & (along.values.max(axis=1) < 2 * along.at_sample)
    return int(np.argmin(np.where(tame, np.abs(along.curvature), np.inf)))


def _frame(axes: Axes, neuron: Neuron, size: int, shown: int) -> None:
    wide = shown / size
    corner = neuron.x * wide - 0.5, neuron.y * wide - 0.5
    axes.add_patch(Rectangle(corner, wide, wide, fill=False, edgecolor=ORANGE, linewidth=2.5))


def _secants(axes: Axes, along: AxisPattern, mean: float) -> None:
    """A neuron's activation along one axis, with change points, secants and distances; only the sign at grid points counts."""
    finer = (len(along.offsets) - 1) // DIVISIONS
    start, ends = along.at_sample, [int(np.searchsorted(along.offsets, at[0] - 1e-6)) for at in (along.left, along.right)]
    low = -0.11 * max(along.values[0])
    axes.plot(along.offsets, along.values[0], color=INK, linewidth=1.4)
    axes.plot(along.offsets[::finer], along.values[0, ::finer], ".", color=INK, markersize=6, label="activation at the grid's points")
    for end, sign, color in zip(ends, "⁻⁺", (BLUE, RED), strict=True):
        at, value = along.offsets[end], along.values[0, end]
        axes.plot((0, at), (start, value), "-o", color=color, linewidth=2.5, markersize=8, label=f"secant to the change point z{sign}")
        axes.annotate("", (at, low), (0, low), arrowprops={"arrowstyle": "<->", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0})
        axes.annotate(f"δ{sign} = {abs(at):g}", (0, low), xytext=(6 if at > 0 else -6, -5), textcoords="offset points",
                      ha="left" if at > 0 else "right", va="top", fontsize=12, color=color)  # fmt: skip
    axes.plot(0, start, "o", color=ORANGE, markersize=10, markeredgecolor=INK, label="sample z", zorder=4)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    before, after = ((along.values[0, end] - start) / along.offsets[end] for end in ends)
    axes.set_title(f"c = [{after:.3f} − {before:.3f}] / ({along.right[0]:g} + {-along.left[0]:g}) = {along.curvature[0]:.4f}\n"
                   f"mean of c over all axes, CLA = {mean:z.4f}".replace("-", "−"), fontsize=12, color=INK)  # fmt: skip
    dress(axes, f"distance walked along axis {along.axes[0]}", "activation")


def cla_ranked(subject: Subject) -> bytes:
    return ranked_faces(subject, names.cla(subject.layer), f"CLA at layer {subject.layer}, exact")


# screening


def screening_ladder(subject: Subject) -> bytes:
    """The half of the pilot that nothing was fitted on, tier by tier: estimates with their intervals, and what is still open."""
    layer, scores, rungs = subject.layer, subject.profile.scores, ladder(subject.generator.latent_size)
    columns = [rung_column(rung, subject.generator.latent_size, layer) for rung in rungs]
    rows = np.flatnonzero(np.isfinite(scores[columns[-1]]))
    limit = float(np.quantile(scores[columns[-1]][rows], 0.9, method="higher"))
    evidence = free_evidence(scores, subject.scored, subject.profile.info.rates)
    screen = fitted_screen(scores, evidence, subject.generator.latent_size, layer, [limit], 0.01, elsewhere=False)
    held = rows[1::2]
    exact, estimates = scores[columns[-1]][held], np.column_stack([scores[name][held] for name in columns[:-1]])
    figure, waiting, shares = blank(4.6), np.ones(len(held), dtype=bool), [1.0]
    *panels, last = figure.subplots(1, 4, width_ratios=(1, 1, 1, 0.8))
    for tier in range(len(rungs)):
        bounds = screen.bounds(tier, evidence[held], estimates)
        over = waiting & (bounds.low <= limit) & (bounds.high > limit)
        if tier < len(panels):
            walked = f"{rungs[tier - 1].axes} axes: {rungs[tier - 1].passes(None, DIVISIONS)} passes" if tier else "no pass beyond the usual one"
            panels[tier].set_title(f"{walked}\nrank correlation {rank_correlation(bounds.value, exact):.3f}", fontsize=12, color=INK)
            _tier(panels[tier], exact, bounds, waiting & ~over, over, limit)
        waiting = over
        shares.append(float(waiting.mean()))
    below(figure, panels[0])
    last.bar(range(len(shares) - 1), [100 * share for share in shares[1:]], color=ORANGE)
    words = ["none", *(f"{rung.axes} × {2 * len(rung.points or range(DIVISIONS // 2))}" for rung in rungs[:-1])]
    last.set_xticks(range(len(words)), words, rotation=50)
    last.set_title("open after each tier\n(the rest goes to the exact score)", fontsize=12, color=INK)
    dress(last, "axes × grid points", "% of the samples")
    return png(figure)


def _tier(axes: Axes, exact: np.ndarray, bounds: Bounds, settled: np.ndarray, waiting: np.ndarray, limit: float) -> None:
    for some, color, word in ((settled, BLUE, "verdict settled"), (waiting, RED, "interval over the limit: one tier up")):
        reach = np.stack((bounds.value - bounds.low, bounds.high - bounds.value))[:, some]
        axes.errorbar(exact[some], bounds.value[some], yerr=reach, fmt="o", markersize=3, linewidth=0.7, color=color, label=word)
    axes.axhline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="limit")
    axes.axvline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    low, high = exact.min(), exact.max()
    axes.set(xlim=(0.95 * low, 1.02 * high), ylim=(0.95 * low, 1.02 * high))
    dress(axes, "exact CLA", "estimate")


# defective score


def defective_score(subject: Subject) -> bytes:
    """A planted defect, whose mask is exact: units that cover it and units that do not."""
    planted = plant(subject.generator, Defect(layer="8x8", units=6, share=0.05, mark="blob"), seed=4)
    layer, latents = planted.truth.layer, sample_latents(subject.generator, range(512), 1)
    assert layer is not None
    thresholds = unit_thresholds(planted.generator, latents, [layer])
    defective = latents[torch.nonzero(planted.truth.defective(latents))[:, 0].numpy()]
    masks = planted.generator.opacity.cpu().expand(len(defective), -1, -1)
    scores = defective_scores(planted.generator, defective, masks, thresholds).mean.of(layer)
    figure = blank(4.5)
    *cells, bars = figure.subplots(1, 5, width_ratios=(1, 1, 1, 1, 1.5))
    return png(figure)
