"""Contact sheets: samples in a grid for people to look at; one for each reason why samples were chosen; and what units draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from PIL import Image, ImageDraw

from qualitygate import names
from qualitygate.errors import InputError, Reason
from qualitygate.records.gate import ExhibitItem, ExhibitRole, RuleLimit, SampleRecord
from qualitygate.reports.material import more_is_worse
from qualitygate.reports.pictures import blend_heat, draw_lines, draw_within, font, heat_scale, line_height, picture, widest_word, wrap
from qualitygate.reports.style import FAINT, INK, MUTED, PAPER, VERDICT_COLORS, number

MARGIN = 24
NARROWEST = 560  # width of a sheet with few cells, in pixels: room for its words
SMALLEST = 32  # side of the smallest picture, in pixels: the height of two lines of words
GENERATED, CORRECTED, HEAT = "generated", "corrected", "low-rate neurons"
UNIT_SIDE = 128
COMPACT_OVER = 24
"""Best and worst samples beyond this many are shown by their images alone: they are there to be compared at a glance."""

_WORDS: Mapping[ExhibitRole, tuple[str, str]] = {
    ExhibitRole.BEST: ("Best samples", "Accepted samples with the {low} scores, the {low} first."),
    ExhibitRole.WORST: ("Worst samples", "The samples with the {high} scores, the {high} first, whatever became of them."),
    ExhibitRole.CORRECTED: (
        "Corrected samples",
        "Samples {over} a limit whose correction passed, the {high} score first: as generated, and as kept.",
    ),
    ExhibitRole.REJECTED: (
        "Rejected samples",
        "Samples that were thrown away, the {high} score first: as generated and, where a correction was tried, after the strongest one.",
    ),
    ExhibitRole.BORDERLINE: (
        "Borderline samples",
        "Samples with a score so close to its limit that another device might decide otherwise, the {low} score first.",
    ),
}
"""Title of a role's sheet, and how its samples were chosen: as `qualitygate.gating.exhibit` does it."""


@dataclass(frozen=True)
class _Cell:
    """One sample: words above, then one picture below the other; a string stands where there is no picture."""

    heading: str
    pictures: tuple[Image.Image | str, ...]
    detail: str = ""
    color: str = PAPER


@dataclass(frozen=True)
class UnitPictures:
    """One unit. Images are uint8 (height, width, channels)."""

    caption: str
    representative: np.ndarray
    images: Sequence[np.ndarray]  # those it is most active in, the most active first
    heat: Sequence[np.ndarray]  # where it is active in each of them, finite float (height, width), at least 0


def contact_sheet(
    items: Sequence[ExhibitItem],
    title: str,
    subtitle: str = "",
    columns: int = 12,
    scale_to: int = 128,
    *,
    limits: Sequence[RuleLimit] = (),
    compact: bool = False,
) -> Image.Image:
    """A grid of samples: id, verdict and deciding score, the image, its correction, and where low-rate neurons fire.

    The corrected row is there if a correction was tried on any of the samples. Heat is scaled to the hottest place of the sheet, and the
    sheet says so. Small images are enlarged (pixels kept as they are where the factor is whole), large ones are shrunk.

    Args:
        items: samples, in the order of the sheet; `InputError` without any, or for arrays that are no images.
        title: first line.
        subtitle: below the title, wrapped to the width.
        columns: cells beside each other, at most.
        scale_to: longer side of each picture, in pixels.
        limits: the rules as they were applied; they name the score that decided. Without them captions hold no score.
        compact: only the images and their ids.
    """
    if not items:
        raise InputError("There is nothing to put on a contact sheet", "no items", "at least one sample of an exhibit")
    if columns < 1 or scale_to < SMALLEST:
        found = f"{columns} columns of {scale_to} pixels"
        raise InputError("A contact sheet of impossible size", found, f"at least one column of {SMALLEST} pixels")
    if compact:
        cells = [_Cell(str(item.record.id), (picture(item.image, scale_to),)) for item in items]
        return _sheet(cells, (), columns, scale_to, title, subtitle)
    hottest = max((float(item.heatmap.max()) for item in items if np.isfinite(item.heatmap).all()), default=None)
    corrected = any(item.corrected is not None for item in items)
    rows = (GENERATED, CORRECTED, HEAT) if corrected else (GENERATED, HEAT)
    cells = []
    for item in items:
        generated = picture(item.image, scale_to)
        drawn: dict[str, Image.Image | str] = {
            GENERATED: generated,
            CORRECTED: "none tried" if item.corrected is None else picture(item.corrected, scale_to),
            HEAT: blend_heat(generated, item.heatmap, hottest or 1.0) if np.isfinite(item.heatmap).all() else "not finite",
        }
        heading, color = f"{item.record.id} {item.record.verdict}", VERDICT_COLORS[item.record.verdict]
        cells.append(_Cell(heading, tuple(drawn[row] for row in rows), _deciding_score(item.record, limits), color))
    return _sheet(cells, rows, columns, scale_to, title, subtitle, hottest)


def comparison_sheet(
    captions: Sequence[str],
    rows: Mapping[str, Sequence[np.ndarray]],
    title: str,
    subtitle: str = "",
    columns: int = 12,
    scale_to: int = 128,
) -> Image.Image:
    """The same samples made in different ways, as in `contact_sheet`: ``rows`` hold, by what they are, uint8 images (height, width,
    channels), one for each caption. A single row has no label."""
    if not captions:
        raise InputError("There is nothing to put on a contact sheet", "no samples", "at least one sample")
    pictures = zip(*([picture(image, scale_to) for image in images] for images in rows.values()), strict=True)
    cells = [_Cell(caption, of_sample) for caption, of_sample in zip(captions, pictures, strict=True)]
    return _sheet(cells, tuple(rows) if len(rows) > 1 else (), columns, scale_to, title, subtitle)


def exhibit_sheets(items: Sequence[ExhibitItem], *, limits: Sequence[RuleLimit] = ()) -> dict[str, Image.Image]:
    """Contact sheets of an exhibit, by the keys of `names.SHEET_KEYS` and in their order; roles without samples have none. With the limits
    captions hold the score that decided, and subtitles the rules."""
    if not items:
        raise InputError("There is no exhibit to show", "no items", "at least one sample", "gate with an exhibit")
    rising = not limits or more_is_worse(limits[0].score)
    low, high, over = ("lowest", "highest", "over") if rising else ("highest", "lowest", "under")
    beyond = {limit.score: "over" if more_is_worse(limit.score) else "under" for limit in limits}
    rules = "; ".join(f"{limit.score} {beyond[limit.score]} {number(limit.limit)}: {limit.action}" for limit in limits)
    sheets = {}
    for key in names.SHEET_KEYS:
        role = ExhibitRole(key.removeprefix("gallery/"))
        chosen = [item for item in items if item.role is role]
        if chosen:
            title, how = _WORDS[role]
            compact = role in (ExhibitRole.BEST, ExhibitRole.WORST) and len(chosen) > COMPACT_OVER
            subtitle = how.format(low=low, high=high, over=over) + (f" Rules: {rules}." if rules else "")
            sheets[key] = contact_sheet(chosen, f"{title} ({len(chosen)})", subtitle, limits=limits, compact=compact)
    return sheets


def unit_sheet(units: Sequence[UnitPictures], title: str, subtitle: str = "", columns: int = 10) -> Image.Image:
    """A sheet of units, all with as many images: representative image, then each of the top images with the unit's heat below it. Heat is
    scaled to the hottest place of the unit's own images."""
    if not units:
        raise InputError("There is nothing to put on a contact sheet", "no units", "at least one unit")
    hottest = [max((float(heat.max()) for heat in unit.heat), default=0.0) or 1.0 for unit in units]
    rows: dict[str, list[np.ndarray]] = {"representative": [unit.representative for unit in units]}
    for place in range(len(units[0].images)):
        rows[f"most active {place + 1}"] = [unit.images[place] for unit in units]
        rows[f"where {place + 1}"] = [
            np.asarray(blend_heat(picture(unit.images[place], UNIT_SIDE), unit.heat[place], most))
            for unit, most in zip(units, hottest, strict=True)
        ]
    return comparison_sheet([unit.caption for unit in units], rows, title, subtitle, columns, UNIT_SIDE)


def _deciding_score(record: SampleRecord, limits: Sequence[RuleLimit]) -> str:
    """Score of the rule that the verdict comes from; of the first rule if the sample broke none."""
    if not limits:
        return ""
    codes = (Reason.OVER_LIMIT, Reason.SCORE_NOT_FINITE)
    named = {reason.partition(":")[2] for reason in record.reasons if reason.startswith(codes)}
    broken = [limit for limit in limits if limit.rule in named]
    deciding = min(broken, key=lambda limit: limit.action is not record.verdict, default=limits[0])
    value = record.scores.get(deciding.score)
    return f"{deciding.score} {'missing' if value is None else number(value)}"


def _sheet(
    cells: Sequence[_Cell], rows: Sequence[str], columns: int, side: int, title: str, subtitle: str, hottest: float | None = None
) -> Image.Image:
    """The cells in a grid below the title, with paper around."""
    grid = _grid(cells, rows, columns, side)
    header = _header(title, subtitle, hottest, grid.width, side)
    width, height = max(header.width, grid.width), header.height + grid.height
    canvas = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), PAPER)
    canvas.paste(header, (MARGIN, MARGIN))
    canvas.paste(grid, (MARGIN, MARGIN + header.height))
    return canvas


def _sizes(side: int) -> tuple[int, int, int]:
    """What follows from the side of a picture: height of words, space between pictures, thickness of the verdict's strip; in pixels."""
    return max(12, side // 11), max(4, side // 24), max(3, side // 32)


def _grid(cells: Sequence[_Cell], rows: Sequence[str], columns: int, side: int) -> Image.Image:
    """All cells, with the names of the rows at the left of each line of cells; no names where there is only one row."""
    text, gap, strip = _sizes(side)
    plain, bold = font(text), font(text, bold=True)
    columns = min(columns, len(cells))
    width = max(side, widest_word((cell.heading for cell in cells), bold), widest_word((cell.detail for cell in cells), plain))
    headings = [wrap(cell.heading, bold, width) for cell in cells]
    details = [wrap(cell.detail, plain, width) for cell in cells]
    words = max(len(above) + len(below) for above, below in zip(headings, details, strict=True)) * line_height(plain)
    top = words + strip + gap  # where the first picture of a cell begins
    height = top + len(cells[0].pictures) * (side + gap)
    left = widest_word(rows, plain) + 2 * gap if rows else 0
    across, down = width + 3 * gap, height + 4 * gap
    lines = ceil(len(cells) / columns)
    canvas = Image.new("RGB", (left + columns * across - 3 * gap, lines * down - 5 * gap), PAPER)
    draw = ImageDraw.Draw(canvas)
    for line in range(lines):
        for place, name in enumerate(rows):
            y = line * down + top + place * (side + gap)
            draw_within(draw, (0, y, left - 2 * gap, y + side), name, plain, MUTED, "right")
    for at, cell in enumerate(cells):
        x, y = left + at % columns * across, at // columns * down
        draw_lines(draw, (x, y), headings[at], bold, INK)
        draw_lines(draw, (x, y + len(headings[at]) * line_height(bold)), details[at], plain, MUTED)
        above = y + words + gap // 2
        draw.rectangle((x, above, x + side - 1, above + strip - 1), cell.color)
        for place, drawn in enumerate(cell.pictures):
            below = y + top + place * (side + gap)
            if isinstance(drawn, Image.Image):
                canvas.paste(drawn, (x + (side - drawn.width) // 2, below + (side - drawn.height) // 2))
            else:
                draw.rectangle((x, below, x + side - 1, below + side - 1), FAINT)
                draw_within(draw, (x, below, x + side, below + side), drawn, plain, MUTED, "center")
    return canvas


def _header(title: str, subtitle: str, hottest: float | None, width: int, side: int) -> Image.Image:
    """Title, subtitle and, where there is heat, its scale; as wide as the grid, or wider where words need it."""
    text, gap, _ = _sizes(side)
    large, plain = font(text * 9 // 5, bold=True), font(text + 2)
    width = max(width, NARROWEST, widest_word([title], large), widest_word([subtitle], plain))
    titles, subtitles = wrap(title, large, width), wrap(subtitle, plain, width)
    bar = heat_scale(8 * text, text)
    said = "No low-rate neuron fires in any of these samples."
    if hottest:
        said = f"Low-rate neurons that fire, share of the units: 0 to {hottest:.2g} (the maximum of this sheet)."
    about = [] if hottest is None else wrap(said, plain, width - bar.width - gap * 2)
    heights = (len(titles) * line_height(large), len(subtitles) * line_height(plain), len(about) * line_height(plain))
    canvas = Image.new("RGB", (width, sum(heights) + gap * 6), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw_lines(draw, (0, 0), titles, large, INK)
    draw_lines(draw, (0, heights[0] + gap), subtitles, plain, MUTED)
    y = heights[0] + heights[1] + 2 * gap
    if about:
        canvas.paste(bar, (0, y + (line_height(plain) - bar.height) // 2))
        draw_lines(draw, (bar.width + 2 * gap, y), about, plain, MUTED)
    return canvas
