"""The picture of the corrections: the same samples, corrected by every method."""

from __future__ import annotations

from drawing.look import jpeg
from drawing.subject import Subject
from qualitygate import names, storage
from qualitygate.corrections.method import corrected_images
from qualitygate.gating.exhibit import render
from qualitygate.policy.corrections import METHODS
from qualitygate.reports.sheets import comparison_sheet

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


def corrections(subject: Subject) -> bytes:
    """Samples of the worst tenth, each corrected by every method."""
    ranked = subject.ranked(names.low_rate(subject.rate))[::-1]
    rows = ranked[: len(ranked) // 10 : max(1, len(ranked) // 80)]
    latents = subject.latents(rows)
    made = {"generated": render(subject.generator, latents)}
    for label, (name, strength) in CORRECTED.items():
        chosen = METHODS[name]()
        method = chosen.ready(subject.generator, subject.profile, chosen.edited(subject.scored, subject.generator.presets.stop))
        images = corrected_images(subject.generator, latents, method, strength)
        made[label] = [storage.to_uint8(image) for image in images.numpy()]
    captions = [f"{count:,.0f}" for count in subject.column(names.low_rate(subject.rate))[rows]]
    title = "From the worst tenth: samples as generated and as corrected"
    subtitle = f"Above each, its active low-rate neurons at R = {subject.rate:g}; one sample of every {len(ranked) // 80} was taken."
    return jpeg(comparison_sheet(captions, made, title, subtitle, scale_to=96))
