"""Pictures of low-rate neurons: rates of the layers, faces by their count, and where the neurons fire."""

from __future__ import annotations

import numpy as np

from drawing.look import BLUE, ORANGE, blank, jpeg
from drawing.ranking import ranked_faces
from drawing.subject import Subject
from qualitygate import names
from qualitygate.gating.exhibit import render
from qualitygate.reports.pictures import blend_heat, picture
from qualitygate.reports.sheets import comparison_sheet
from qualitygate.reports.style import FAINT, INK, PAPER, dress, png
from qualitygate.scores.low_rate import low_rate_heatmap


def low_rate_rates(subject: Subject) -> bytes:
    """How often neurons fire, layer by layer."""
    figure = blank(3.6)
    for axes, layer in zip(figure.subplots(1, len(subject.scored), sharey=True), subject.scored, strict=True):
        rates = subject.profile.rates.rates[layer].flatten().numpy()
        axes.axvspan(0, subject.rate, color=ORANGE, alpha=0.3, linewidth=0, label=f"low-rate at R = {subject.rate:g}")
        axes.hist(rates, np.linspace(0, 1, 51).tolist(), weights=np.full(len(rates), 1 / len(rates)), color=BLUE)
        share = float(subject.profile.rates.low_rate(layer, subject.rate).double().mean())
        where = subject.generator.layers[layer]
        axes.set_title(f"layer {layer}, {where.height}×{where.width}: {len(rates):,} neurons, {share:.1%} low-rate", fontsize=12, color=INK)
        axes.set_xlim(0, 1)
        dress(axes, "activation rate", "share of the neurons" if not layer else "")
        if not layer:
            axes.legend(frameon=True, facecolor=PAPER, edgecolor=FAINT, fontsize=11, labelcolor=INK)
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
    images = render(subject.generator, latents)
    heated = [np.asarray(blend_heat(picture(image, 112), one, heat.max())) for image, one in zip(images, heat, strict=True)]
    counts = subject.column(names.low_rate(subject.rate))[chosen]
    sheet = comparison_sheet(
        [f"{count:,.0f}" for count in counts],
        {"generated": images, "low-rate": heated},
        f"Fewest and most of {len(rows):,} samples: where neurons fire that rarely fire",
        scale_to=112,
    )
    return jpeg(sheet)
