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
from qualitygate.reports.pictures import blend_heat, draw_lines, draw_within, font, heat_scale, line_height, picture, widest_word, wrap
from qualitygate.reports.style import FAINT, INK, MUTED, PAPER, VERDICT_COLORS, number

MARGIN = 24
NARROWEST = 560
"""Width of a sheet with few cells, in pixels: room for its words."""
SMALLEST = 32
"""Side of the smallest picture, in pixels: the height of two lines of words."""
GENERATED, CORRECTED, HEAT = "generated", "corrected", "low-rate neurons"
UNIT_SIDE = 128
COMPACT_OVER = 24
"""Best and worst samples beyond this many are shown by their images alone: they are there to be compared at a glance."""

_WORDS: Mapping[ExhibitRole, tuple[str, str]] = {
    ExhibitRole.BEST: ("Best samples", "Accepted samples with the lowest scores, the lowest first."),
    ExhibitRole.WORST: ("Worst samples", "The samples with the highest scores, the highest first, whatever became of them."),
    ExhibitRole.CORRECTED: (
        "Corrected samples",
        "Samples over a limit whose correction passed, the highest score first: as generated, and as kept.",
    ),
    ExhibitRole.REJECTED: (
        "Rejected samples",
        "Samples that were thrown away, the highest score first: as generated and, where a correction was tried, after the strongest one.",
    ),
    ExhibitRole.BORDERLINE: (
        "Borderline samples",
        "Samples with a score so close to its limit that another device might decide otherwise, the lowest score first.",
    ),
}
"""Title of a role's sheet, and how its samples were chosen: as `qualitygate.gating.exhibit` does it."""


@dataclass(frozen=True)
class _Style:
    """Sizes that follow from the side of a picture, all in pixels."""

    side: int

    @property
    def text(self) -> int:
        return max(12, self.side // 11)

    @property
    def gap(self) -> int:
        return max(4, self.side // 24)

    @property
    def strip(self) -> int:
        return max(3, self.side // 32)


@dataclass(frozen=True)
class _Cell:
    """One sample: words above, then one picture below the other; a string stands where there is no picture."""

    heading: str
    detail: str
    color: str
    pictures: tuple[Image.Image | str, ...]


@dataclass(frozen=True)
class UnitPictures:
    """One unit.

    Attributes:
        caption: what it is called.
        representative: uint8 (height, width, channels).
        images: those it is most active in, each uint8 (height, width, channels), the most active first.
        heat: where it is active in each of them, finite float (height, width), at least 0.
    """

    caption: str
    representative: np.ndarray
    images: Sequence[np.ndarray]
    heat: Sequence[np.ndarray]


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
        items: samples, in the order of the sheet.
        title: first line.
        subtitle: below the title, wrapped to the width; may be empty.
        columns: cells beside each other, at most.
        scale_to: longer side of each picture, in pixels.
        limits: the rules as they were applied; they name the score that decided. Without them captions hold no score.
        compact: only the images and their ids.

    Returns:
        RGB picture.

    Raises:
        InputError: no items, no columns, pictures too small for words, or arrays that are no images.
    """
    if not items:
        raise InputError("There is nothing to put on a contact sheet", "no items", "at least one sample of an exhibit")
    if columns < 1 or scale_to < SMALLEST:
        raise InputError(
            "A contact sheet of impossible size", f"{columns} columns of {scale_to} pixels", f"at least one column of {SMALLEST} pixels"
        )
    style = _Style(scale_to)
    if compact:
        cells = [_Cell(str(item.record.id), "", PAPER, (picture(item.image, scale_to),)) for item in items]
        return _sheet(cells, (), columns, style, title, subtitle)
    hottest = max((float(item.heatmap.max()) for item in items if np.isfinite(item.heatmap).all()), default=None)
    corrected = any(item.corrected is not None for item in items)
    rows = (GENERATED, CORRECTED, HEAT) if corrected else (GENERATED, HEAT)
    cells = [_cell(item, rows, hottest, limits, scale_to) for item in items]
    return _sheet(cells, rows, columns, style, title, subtitle, hottest)


def comparison_sheet(
    captions: Sequence[str],
    rows: Mapping[str, Sequence[np.ndarray]],
    title: str,
    subtitle: str = "",
    columns: int = 12,
    scale_to: int = 128,
) -> Image.Image:
    """A grid of samples, each with one picture below the other: the same samples made in different ways.

    Args:
        captions: one for each sample.
        rows: by what they are, uint8 images (height, width, channels), one for each sample. A single row has no label.
        title, subtitle, columns, scale_to: as in `contact_sheet`.

    Returns:
        RGB picture.

    Raises:
        InputError: no samples, or arrays that are no images.
    """
    if not captions:
        raise InputError("There is nothing to put on a contact sheet", "no samples", "at least one sample")
    style = _Style(scale_to)
    pictures = zip(*([picture(image, scale_to) for image in images] for images in rows.values()), strict=True)
    cells = [_Cell(caption, "", PAPER, of_sample) for caption, of_sample in zip(captions, pictures, strict=True)]
    return _sheet(cells, tuple(rows) if len(rows) > 1 else (), columns, style, title, subtitle)


def exhibit_sheets(items: Sequence[ExhibitItem], *, limits: Sequence[RuleLimit] = ()) -> dict[str, Image.Image]:
    """Contact sheets of an exhibit, by the keys of `names.SHEET_KEYS` and in their order; roles without samples have none.

    Args:
        items: the exhibit, in any order of roles; within a role the order is kept.
        limits: the rules as they were applied: captions then hold the score that decided, and subtitles the limits.

    Raises:
        InputError: an empty exhibit.
    """
    if not items:
        raise InputError("There is no exhibit to show", "no items", "at least one sample", "gate with an exhibit")
    rules = "; ".join(f"{limit.score} over {number(limit.limit)}: {limit.action}" for limit in limits)
    sheets = {}
    for key in names.SHEET_KEYS:
        role = ExhibitRole(key.removeprefix("gallery/"))
        chosen = [item for item in items if item.role is role]
        if chosen:
            title, how = _WORDS[role]
            compact = role in (ExhibitRole.BEST, ExhibitRole.WORST) and len(chosen) > COMPACT_OVER
            subtitle = f"{how} Rules: {rules}." if rules else how
            sheets[key] = contact_sheet(chosen, f"{title} ({len(chosen)})", subtitle, limits=limits, compact=compact)
    return sheets


def unit_sheet(units: Sequence[UnitPictures], title: str, subtitle: str = "", columns: int = 10) -> Image.Image:
    """A sheet of units: representative image, then each of the top images with the unit's heat below it. Heat is scaled to the hottest
    place of the unit's own images.

    Args:
        units: in the order of the sheet, all with as many images.
        title, subtitle: as in `contact_sheet`.
        columns: units beside each other, at most.

    Raises:
        InputError: no units, or arrays that are no images.
    """
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


def _sheet(
    cells: Sequence[_Cell], rows: Sequence[str], columns: int, style: _Style, title: str, subtitle: str, hottest: float | None = None
) -> Image.Image:
    """The cells in a grid below the title, with paper around."""
    grid = _grid(cells, rows, columns, style)
    header = _header(title, subtitle, hottest, grid.width, style)
    width, height = max(header.width, grid.width), header.height + grid.height
    canvas = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), PAPER)
    canvas.paste(header, (MARGIN, MARGIN))
    canvas.paste(grid, (MARGIN, MARGIN + header.height))
    return canvas


def _cell(item: ExhibitItem, rows: Sequence[str], hottest: float | None, limits: Sequence[RuleLimit], side: int) -> _Cell:
    generated = picture(item.image, side)
    drawn: dict[str, Image.Image | str] = {
        GENERATED: generated,
        CORRECTED: "none tried" if item.corrected is None else picture(item.corrected, side),
        HEAT: blend_heat(generated, item.heatmap, hottest or 1.0) if np.isfinite(item.heatmap).all() else "not finite",
    }
    record = item.record
    return _Cell(
        f"{record.id} {record.verdict}", _deciding_score(record, limits), VERDICT_COLORS[record.verdict], tuple(drawn[row] for row in rows)
    )


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


def _grid(cells: Sequence[_Cell], rows: Sequence[str], columns: int, style: _Style) -> Image.Image:
    """All cells, with the names of the rows at the left of each line of cells; no names where there is only one row."""
    plain, bold = font(style.text), font(style.text, bold=True)
    side, columns = style.side, min(columns, len(cells))
    width = max(side, widest_word((cell.heading for cell in cells), bold), widest_word((cell.detail for cell in cells), plain))
    headings = [wrap(cell.heading, bold, width) for cell in cells]
    details = [wrap(cell.detail, plain, width) for cell in cells]
    words = max(len(above) + len(below) for above, below in zip(headings, details, strict=True)) * line_height(plain)
    top = words + style.strip + style.gap  # where the first picture of a cell begins
    height = top + len(cells[0].pictures) * (side + style.gap)
    left = widest_word(rows, plain) + 2 * style.gap if rows else 0
    across, down = width + 3 * style.gap, height + 4 * style.gap
    lines = ceil(len(cells) / columns)
    canvas = Image.new("RGB", (left + columns * across - 3 * style.gap, lines * down - 5 * style.gap), PAPER)
    draw = ImageDraw.Draw(canvas)
    for line in range(lines):
        for place, name in enumerate(rows):
            y = line * down + top + place * (side + style.gap)
            draw_within(draw, (0, y, left - 2 * style.gap, y + side), name, plain, MUTED, "right")
    for at, cell in enumerate(cells):
        x, y = left + at % columns * across, at // columns * down
        draw_lines(draw, (x, y), headings[at], bold, INK)
        draw_lines(draw, (x, y + len(headings[at]) * line_height(bold)), details[at], plain, MUTED)
        strip = y + words + style.gap // 2
        draw.rectangle((x, strip, x + side - 1, strip + style.strip - 1), cell.color)
        for place, drawn in enumerate(cell.pictures):
            _put(canvas, drawn, (x, y + top + place * (side + style.gap)), style)
    return canvas


def _put(canvas: Image.Image, drawn: Image.Image | str, corner: tuple[int, int], style: _Style) -> None:
    """A picture in the middle of its square, or an empty square that says why it is empty."""
    x, y = corner
    if isinstance(drawn, Image.Image):
        canvas.paste(drawn, (x + (style.side - drawn.width) // 2, y + (style.side - drawn.height) // 2))
        return
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((x, y, x + style.side - 1, y + style.side - 1), FAINT)
    draw_within(draw, (x, y, x + style.side, y + style.side), drawn, font(style.text), MUTED, "center")


def _header(title: str, subtitle: str, hottest: float | None, width: int, style: _Style) -> Image.Image:
    """Title, subtitle and, where there is heat, its scale; as wide as the grid, or wider where words need it."""
    large, plain = font(style.text * 9 // 5, bold=True), font(style.text + 2)
    width = max(width, NARROWEST, widest_word([title], large), widest_word([subtitle], plain))
    titles, subtitles = wrap(title, large, width), wrap(subtitle, plain, width)
    bar = heat_scale(8 * style.text, style.text)
    beside = width - bar.width - style.gap * 2
    about = [] if hottest is None else wrap(_heat_words(hottest), plain, beside)
    heights = (len(titles) * line_height(large), len(subtitles) * line_height(plain), len(about) * line_height(plain))
    canvas = Image.new("RGB", (width, sum(heights) + style.gap * 6), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw_lines(draw, (0, 0), titles, large, INK)
    draw_lines(draw, (0, heights[0] + style.gap), subtitles, plain, MUTED)
    y = heights[0] + heights[1] + 2 * style.gap
    if about:
        canvas.paste(bar, (0, y + (line_height(plain) - bar.height) // 2))
        draw_lines(draw, (bar.width + 2 * style.gap, y), about, plain, MUTED)
    return canvas


def _heat_words(hottest: float) -> str:
    if hottest == 0.0:
        return "No low-rate neuron fires in any of these samples."
    return f"Low-rate neurons that fire, share of the units: 0 to {hottest:.2g} (the maximum of this sheet)."
