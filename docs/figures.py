"""Makes the pictures of the method pages again, from the face DCGAN of `make demo` and the digits of the tests.

    python docs/figures.py CHECKPOINT [--only cla screening] [--profile FOLDER] [--out docs/images]

Everything is seeded: the same checkpoint gives the same pictures. Most of the time goes into a calibration; with `--profile` it is kept in
a folder, and found there the next time. The package has to be installed, or its checkout on the PYTHONPATH.
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
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
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
from qualitygate.metrics.manifold import balls_around, neighbour_radii, realism, recall
from qualitygate.patterns import AxisPattern, Neuron
from qualitygate.policy.corrections import METHODS
from qualitygate.policy.model import Policy, default_policy
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
from qualitygate.testing.planted import Defect, plant
from qualitygate.units.compare import rank_correlation
from qualitygate.units.defective_score import defective_scores
from qualitygate.units.thresholds import unit_thresholds

HERE = Path(__file__).parent
DIGITS = HERE.parent / "tests" / "data" / "digits" / "snapshot-003000.safetensors"
WIDE = 14.0
"""Inches, so 1,400 pixels."""
MOST_BYTES = 150_000
PLANTED_AT, PLANTED_SAMPLES = "8x8", 1_024
CORRECTED: dict[str, tuple[str, float]] = {
    "sequential ablation, R=0.1": ("sequential_ablation", 0.1),
    "sequential ablation, R=0.2": ("sequential_ablation", 0.2),
    "single ablation, R=0.2": ("single_ablation", 0.2),
    "zero ablation, 2% of units": ("zero_ablation", 0.02),
    "sequential correction, 20% of units": ("sequential_correction", 0.2),
    "local region, weight 1": ("local_region", 1.0),
    "random ablation, 30%": ("random_ablation", 0.3),
    "high-rate ablation, R=0.7": ("high_rate_ablation", 0.7),
}
"""Rows of the sheet of corrections: method and strength; all other settings are defaults."""
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
    profile = qualitygate.calibrate(
        generator, with_curvature(default_policy(generator.family), generator.presets.curvature[0])
    )
    if folder is not None:
        profile.save(folder)
    return profile


# what every picture needs


def blank(height: float) -> Figure:
    return Figure(figsize=(WIDE, height), dpi=DPI, facecolor=PAPER, layout="constrained")


def jpeg(drawn: Image.Image | bytes) -> bytes:
    """Of the best quality that keeps the file small."""
    image = (drawn if isinstance(drawn, Image.Image) else Image.open(io.BytesIO(drawn))).convert("RGB")
    out = io.BytesIO()
    for quality in (90, 84, 78, 72, 66, 60):
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= MOST_BYTES:
            break
    return out.getvalue()


def few_colours(drawn: bytes) -> bytes:
    """A PNG with a palette, for drawings without photographs."""
    out = io.BytesIO()
    Image.open(io.BytesIO(drawn)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
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
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=12, labelcolor=INK
    )


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
    strips = [
        np.vstack([part for tile in tiles[3 * at : 3 * at + 3] for part in (tile, gap)]) for at in range(len(columns))
    ]
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


def low_rate_rates(subject: Subject) -> bytes:
    """How often neurons fire, layer by layer."""
    figure = blank(3.6)
    for axes, layer in zip(figure.subplots(1, len(subject.scored), sharey=True), subject.scored, strict=True):
        rates = subject.profile.rates.rates[layer].flatten().numpy()
        axes.axvspan(0, subject.rate, color=ORANGE, alpha=0.3, linewidth=0, label=f"low-rate at R = {subject.rate:g}")
        axes.hist(rates, np.linspace(0, 1, 51).tolist(), weights=np.full(len(rates), 1 / len(rates)), color=BLUE)
        share = float(subject.profile.rates.low_rate(layer, subject.rate).double().mean())
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
    return ranked_faces(
        subject, names.low_rate(subject.rate), f"active low-rate neurons at R = {subject.rate:g}", limit
    )


def low_rate_heat(subject: Subject) -> bytes:
    """Where low-rate neurons fire, in the samples with the fewest and the most of them."""
    rows = subject.ranked(names.low_rate(subject.rate))
    chosen = np.concatenate((rows[:5], rows[-5:]))
    latents = subject.latents(chosen)
    heat = low_rate_heatmap(subject.generator, latents, subject.profile.rates, subject.rate, subject.scored).numpy()
    images = made_again(subject.generator, latents)
    heated = [
        np.asarray(blend_heat(picture(image, 112), one, heat.max())) for image, one in zip(images, heat, strict=True)
    ]
    counts = subject.column(names.low_rate(subject.rate))[chosen]
    sheet = comparison_sheet([f"{count:,.0f}" for count in counts], {"generated": images, "low-rate": heated},
                             f"Fewest and most of {len(rows):,} samples: where neurons fire that rarely fire", scale_to=112)  # fmt: skip
    return jpeg(sheet)


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
        show(
            cells[2 * row], image, f"{word} of\n{len(subject.ranked(names.cla(subject.layer))):,} samples: {score:.1f}"
        )
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
    start, ends = (
        along.at_sample,
        [int(np.searchsorted(along.offsets, at[0] - 1e-6)) for at in (along.left, along.right)],
    )
    low = -0.11 * max(along.values[0])
    axes.plot(along.offsets, along.values[0], color=INK, linewidth=1.4)
    axes.plot(
        along.offsets[::finer],
        along.values[0, ::finer],
        ".",
        color=INK,
        markersize=6,
        label="activation at the grid's points",
    )
    for end, sign, color in zip(ends, "⁻⁺", (BLUE, RED), strict=True):
        at, value = along.offsets[end], along.values[0, end]
        axes.plot(
            (0, at),
            (start, value),
            "-o",
            color=color,
            linewidth=2.5,
            markersize=8,
            label=f"secant to the change point z{sign}",
        )
        axes.annotate(
            "",
            (at, low),
            (0, low),
            arrowprops={"arrowstyle": "<->", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0},
        )
        axes.annotate(f"δ{sign} = {abs(at):g}", (0, low), xytext=(6 if at > 0 else -6, -5), textcoords="offset points",
                      ha="left" if at > 0 else "right", va="top", fontsize=12, color=color)  # fmt: skip
    axes.plot(0, start, "o", color=ORANGE, markersize=10, markeredgecolor=INK, label="sample z", zorder=4)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    before, after = ((along.values[0, end] - start) / along.offsets[end] for end in ends)
    axes.set_title(f"c = [{after:.3f} − {before:.3f}] / ({along.right[0]:g} + {-along.left[0]:g}) = {along.curvature[0]:.4f}\n"
                   f"mean of c over all axes, CLA = {mean:z.4f}".replace("-", "−"), fontsize=12, color=INK)  # fmt: skip
    dress(axes, f"distance walked along axis {along.axes[0]}", "activation")


def cla_ranked(subject: Subject) -> bytes:
    name, count = names.cla(subject.layer), names.low_rate(subject.rate)
    rows = subject.ranked(name)
    alike = rank_correlation(subject.column(name)[rows], subject.column(count)[rows])
    return ranked_faces(
        subject, name, f"CLA at layer {subject.layer}, exact (rank correlation with {count}: {alike:.2f})"
    )


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
            walked = (
                f"{rungs[tier - 1].axes} axes: {rungs[tier - 1].passes(None, DIVISIONS)} passes"
                if tier
                else "no pass beyond the usual one"
            )
            panels[tier].set_title(
                f"{walked}\nrank correlation {rank_correlation(bounds.value, exact):.3f}", fontsize=12, color=INK
            )
            _tier(panels[tier], exact, bounds, waiting & ~over, over, limit)
        waiting = over
        shares.append(float(waiting.mean()))
    below(figure, panels[0])
    last.bar(range(len(shares) - 1), [100 * share for share in shares[1:]], color=RED)
    words = ["none", *(f"{rung.axes} × {2 * len(rung.points or range(DIVISIONS // 2))}" for rung in rungs[:-1])]
    last.set_xticks(range(len(words)), words, rotation=50)
    last.set_title("still open after each tier;\nat last the exact score", fontsize=12, color=INK)
    dress(last, "axes × grid points", "% of the samples")
    return png(figure)


def _tier(
    axes: Axes, exact: np.ndarray, bounds: Bounds, settled: np.ndarray, waiting: np.ndarray, limit: float
) -> None:
    for some, color, word in (
        (settled, BLUE, "verdict settled"),
        (waiting, RED, "interval over the limit: one tier up"),
    ):
        reach = np.stack((bounds.value - bounds.low, bounds.high - bounds.value))[:, some]
        axes.errorbar(
            exact[some], bounds.value[some], yerr=reach, fmt="o", markersize=3, linewidth=0.7, color=color, label=word
        )
    axes.axhline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="limit")
    axes.axvline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    low, high = exact.min(), exact.max()
    axes.set(xlim=(0.95 * low, 1.02 * high), ylim=(0.95 * low, 1.02 * high))
    dress(axes, "exact CLA", "estimate")


# defective score


def defective_score(subject: Subject) -> bytes:
    """A planted defect, whose mask is exact: a unit that covers it, one that does not, and the score of all units of the layer."""
    planted = plant(subject.generator, Defect(layer=PLANTED_AT, units=6, share=0.05, mark="blob"), seed=4)
    truth, layer = planted.truth, subject.generator.layer(PLANTED_AT).index
    latents = sample_latents(subject.generator, range(PLANTED_SAMPLES), 1)
    thresholds = unit_thresholds(planted.generator, latents, [layer])
    broken = latents[torch.nonzero(truth.defective(latents))[:, 0].numpy()]
    mask = truth.pixels.float()
    overlap = defective_scores(planted.generator, broken, mask.expand(len(broken), -1, -1), thresholds)
    scores = overlap.mean.of(layer)
    with scored_pass():
        activation = dict(read_layers(planted.generator, broken[:1], [layer]))[layer][0]
    regions = F.interpolate(
        (activation > thresholds[layer][:, None, None]).float()[None], size=mask.shape, mode="bilinear"
    )[0]
    covers = int(np.argmax(scores))
    elsewhere = int((regions.flatten(1).sum(dim=1) * (overlap.overlap[layer][0] < 0.05)).argmax())
    image = made_again(planted.generator, broken[:1])[0]
    figure = blank(4.0)
    *cells, bars = figure.subplots(1, 5, width_ratios=(1, 1, 1, 1, 1.5))
    show(cells[0], image, "an image with the defect")
    show(cells[1], _regions(image, mask > 0, torch.zeros_like(mask) > 0), "its mask L")
    for cell, unit in zip(cells[2:], (covers, elsewhere), strict=True):
        show(cell, _regions(image, mask > 0, regions[unit] > 0.5),
             f"A of unit {unit}: DS {scores[unit]:.2f},\nin this image IoU {overlap.overlap[layer][0, unit]:.2f}")  # fmt: skip
    _bars(bars, scores, truth.units[layer])
    words = {ORANGE: "mask alone", BLUE: "region alone", GREEN: "both"}
    figure.legend(handles=[Patch(color=color, label=word) for color, word in words.items()], loc="outside lower left", ncols=3,
                  frameon=False, fontsize=12, labelcolor=INK)  # fmt: skip
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
    axes.set_title(
        f"the {len(order)} highest of {len(scores)} units;\norange-red: the {len(planted)} planted ones",
        fontsize=12,
        color=INK,
    )
    dress(axes, "units, by rank", "defective score")


# corrections


def corrections(subject: Subject) -> bytes:
    """Samples of the worst tenth, each corrected by every method."""
    ranked = subject.ranked(names.low_rate(subject.rate))[::-1]
    rows = ranked[: len(ranked) // 10 : max(1, len(ranked) // 80)]
    latents = subject.latents(rows)
    made = {"generated": made_again(subject.generator, latents)}
    for label, (name, strength) in CORRECTED.items():
        chosen = METHODS[name]()
        method = method_of(
            chosen, subject.generator, subject.profile, chosen.edited(subject.scored, subject.generator.presets.stop)
        )
        images = corrected_images(subject.generator, latents, method, strength)
        made[label] = [storage.to_uint8(image) for image in images.numpy()]
    captions = [f"{count:,.0f}" for count in subject.column(names.low_rate(subject.rate))[rows]]
    title = "From the worst tenth: samples as generated and as corrected"
    subtitle = f"Above each, its active low-rate neurons at R = {subject.rate:g}; one sample of every {len(ranked) // 80} was taken."
    return jpeg(comparison_sheet(captions, made, title, subtitle, scale_to=96))


# metrics of sets


def metrics_balls(subject: Subject | None = None) -> bytes:
    """Precision, recall and realism of points in the plane, where neighbourhoods can be seen; the numbers are those of the package."""
    random = np.random.default_rng(3)
    real, generated = (torch.from_numpy(_ring(random, *one)) for one in ((60, 2.0), (32, 1.0)))
    generated = torch.cat((generated, torch.from_numpy(random.uniform(-0.5, 0.5, (8, 2)))))
    around_real, around_generated = neighbour_radii(real), neighbour_radii(generated)
    inside, reached = balls_around(generated, real, around_real) > 0, recall(generated, real)
    figure = blank(5.6)
    first, second, third = figure.subplots(1, 3)
    _balls(first, real, around_real, BLUE)
    _points(
        first,
        (real, BLUE, "real"),
        (generated[inside], GREEN, "generated, inside"),
        (generated[~inside], RED, "outside"),
    )
    first.set_title(f"{int(inside.sum())} of {len(generated)} generated ones\nlie in a real one's ball: precision {inside.double().mean():.2f}",
                    fontsize=13, color=INK)  # fmt: skip
    _balls(second, generated, around_generated, SKY)
    _points(
        second, (generated, SKY, "generated"), (real[reached], GREEN, "real, reached"), (real[~reached], RED, "missed")
    )
    second.set_title(f"{int(reached.sum())} of {len(real)} real ones\nlie in a generated one's ball: recall {reached.double().mean():.2f}",
                     fontsize=13, color=INK)  # fmt: skip
    counts = around_real <= around_real.quantile(0.5)
    _balls(third, real[counts], around_real[counts], BLUE)
    _points(third, (real, FAINT, "real"))
    shown = third.scatter(*generated.T, c=realism(generated, real, around_real), cmap="RdYlGn", vmin=0, vmax=2, s=50, edgecolors=INK,
                          linewidths=0.6, label="generated", zorder=3)  # fmt: skip
    figure.colorbar(shown, ax=third, shrink=0.75)
    third.set_title(
        "realism of each generated one:\nat least 1 inside a ball of the smaller half", fontsize=13, color=INK
    )
    for axes in (first, second, third):
        axes.set(xticks=[], yticks=[], aspect="equal", xlim=(-1.75, 1.75), ylim=(-1.75, 1.75), facecolor=PAPER)
        axes.legend(frameon=False, fontsize=12, labelcolor=INK, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3,
                    handletextpad=0.1, columnspacing=1.0)  # fmt: skip
    return few_colours(png(figure))


def _ring(random: np.random.Generator, count: int, half_turns: float) -> np.ndarray:
    angle = random.uniform(0, half_turns * np.pi, count)
    return np.column_stack((np.cos(angle), np.sin(angle))) + random.normal(0, 0.13, (count, 2))


def _balls(axes: Axes, centres: Tensor, radii: Tensor, color: str) -> None:
    for centre, radius in zip(centres.tolist(), radii.tolist(), strict=True):
        axes.add_patch(Circle(tuple(centre), radius, facecolor=color, alpha=0.12, edgecolor=color, linewidth=0.4))


def _points(axes: Axes, *some: tuple[Tensor, str, str]) -> None:
    for points, color, word in some:
        axes.plot(*points.T, "o", color=color, markersize=6, markeredgecolor=INK, markeredgewidth=0.4, label=word)


def metrics_digits(subject: Subject | None = None) -> bytes:
    """Precision against recall of the digits: groups by low-rate neurons, and truncation. Needs no checkpoint but that of the tests."""
    generator = load_generator(DIGITS, device="cpu")
    document = default_policy(generator.family).model_dump()
    document["calibration"] |= {"rate_samples": 10_000, "score_samples": 2_000}
    policy = Policy.model_validate(document)
    stage = GateStage(generator, qualitygate.calibrate(generator, policy), policy, seed=1)
    tools = Tools(generator, extractor=make_extractor("random-vgg16-32"), real=digits_images(32), stage=stage)
    drawn = trade_figure(measure(tools, Request(1000, score=policy.rules[0].score)).report)
    assert drawn is not None
    return drawn


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
OTHERS: dict[str, str] = {}
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
