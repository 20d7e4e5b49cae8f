"""Faces in the order of a score."""

from __future__ import annotations

import numpy as np

from drawing.look import BLUE, RED, blank, jpeg
from drawing.subject import Subject
from qualitygate.gating.exhibit import render
from qualitygate.reports.pictures import picture
from qualitygate.reports.style import INK, dress, number, png


def ranked_faces(subject: Subject, name: str, what: str, limit: float | None = None) -> bytes:
    """Distribution of a score, and below it samples at every tenth of the ranking: nobody chose them."""
    rows, values = subject.ranked(name), subject.column(name)
    tenths = np.linspace(0, 1, 11)
    columns = [rows[round(share * (len(rows) - 3)) :][:3] for share in tenths]
    images = render(subject.generator, subject.latents(np.concatenate(columns)))
    figure = blank(6.6)
    above, faces = figure.subplots(2, 1, height_ratios=(1, 2.2))
    above.hist(values[rows], 80, color=BLUE)
    if limit is not None:
        above.axvline(limit, color=RED, linewidth=2)
        above.annotate(
            f"limit of the default rule: {number(limit)}",
            (limit, 0.92),
            xycoords=("data", "axes fraction"),
            color=RED,
            xytext=(8, 0),
            textcoords="offset points",
            fontsize=12,
            va="top",
        )
    dress(above, f"{what}, {len(rows):,} samples", "samples")
    tiles = [np.asarray(picture(image, 128)) for image in images]
    gap = np.full((4, 128, 3), 255, dtype=np.uint8)
    strips = [np.vstack([part for tile in tiles[3 * at : 3 * at + 3] for part in (tile, gap)]) for at in range(len(columns))]
    between = np.full((len(strips[0]), 6, 3), 255, dtype=np.uint8)
    faces.imshow(np.hstack([part for strip in strips for part in (strip, between)]), interpolation="bilinear")
    words = ["lowest", *(f"{share:.0%}" for share in tenths[1:-1]), "highest"]
    faces.set_xticks(
        [64 + 134 * at for at in range(len(columns))],
        [f"{word}\n{number(values[some[1]])}" for word, some in zip(words, columns, strict=True)],
    )
    faces.set(yticks=[])
    faces.tick_params(length=0, labelsize=11, colors=INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    faces.set_frame_on(False)
    return jpeg(png(figure))
