"""What a check shows: images of the candidate, and below each what the baseline makes of the same latent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qualitygate.reports.check_page import Sheet
from qualitygate.storage import to_uint8
from qualitygate.studies.check.images import images_of
from qualitygate.studies.check.sample import Sample

COUNT = 12


def sheets(ours: Sample, theirs: Sample | None, *, paired: bool) -> tuple[Sheet, Sheet]:
    """The first samples, taken as they come, and the candidate's worst by the first rule of the policy.

    Args:
        ours: of the candidate, gated.
        theirs: of the baseline; None without one, or if it is the candidate itself.
        paired: equal ids are equal latents in both.
    """
    score = ours.policy.rules[0].score
    values = np.nan_to_num(ours.columns[score], nan=np.inf)
    worst = np.argsort(-values, kind="stable")[:COUNT]
    below = "" if theirs is None else f"; below, the baseline's of the same {'latents' if paired else 'ids, not the same latents'}"
    return (
        _sheet("As they come", f"The candidate's first samples{below}.", ours, theirs, np.arange(COUNT)),
        _sheet("The candidate's worst", f"By {score}, the worst first{below}.", ours, theirs, worst, score),
    )


def _sheet(title: str, caption: str, ours: Sample, theirs: Sample | None, rows: np.ndarray, score: str = "") -> Sheet:
    ids = ours.ids[rows]
    details = [f"{value:.4g}" for value in ours.columns[score][rows]] if score else [""] * len(rows)
    made = {"candidate": _images(ours, ids)} | ({} if theirs is None else {"baseline": _images(theirs, ids)})
    captions = tuple(f"{sample}  {detail}".rstrip() for sample, detail in zip(ids, details, strict=True))
    return Sheet(title, caption, captions, made)


def _images(sample: Sample, ids: np.ndarray) -> Sequence[np.ndarray]:
    """uint8 (height, width, channels) each."""
    batches = images_of(sample.generator, sample.stage.latents(ids), lambda _: None)
    return [to_uint8(np.nan_to_num(image.cpu().numpy())) for images, _ in batches for image in images]
