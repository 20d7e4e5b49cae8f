"""Sheets: what is drawn where, that nothing is clipped, one for each role under the promised keys, and what units draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from reports.made_up import SCORE, item, limits, record, smooth

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.policy import scores
from qualitygate.records.gate import ExhibitItem, ExhibitRole, Verdict
from qualitygate.reports import sheets as module
from qualitygate.reports.pictures import blend_heat, font, picture, text_width, wrap
from qualitygate.reports.sheets import MARGIN, UnitPictures, contact_sheet, exhibit_sheets, unit_sheet
from qualitygate.reports.style import VERDICT_COLORS

SIDE = 64


def paper_around(sheet: Image.Image) -> bool:
    pixels = np.asarray(sheet).copy()
    pixels[MARGIN:-MARGIN, MARGIN:-MARGIN] = 255
    return bool((pixels == 255).all())


def where(sheet: Image.Image, part: Image.Image) -> tuple[int, int] | None:
    """Corner (x, y) at which a picture stands in a sheet."""
    whole, small = np.asarray(sheet).astype(np.int32), np.asarray(part).astype(np.int32)
    height, width = small.shape[:2]
    corners = np.argwhere((whole[: 1 - height or None, : 1 - width or None] == small[0, 0]).all(axis=2))
    found = [(x, y) for y, x in corners.tolist() if np.array_equal(whole[y : y + height, x : x + width], small)]
    return found[0] if found else None


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[float, float, float, float], str, tuple[int, int]]]:
    """Boxes of all lines that are drawn, with their text and the size of the canvas they are drawn on."""
    seen: list[tuple[tuple[float, float, float, float], str, tuple[int, int]]] = []
    text = ImageDraw.ImageDraw.text

    def watch(draw: ImageDraw.ImageDraw, xy: tuple[int, int], line: str, **how: Any) -> None:
        seen.append((draw.textbbox(xy, line, font=how["font"]), line, draw.im.size))
        text(draw, xy, line, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", watch)
    return seen


@pytest.mark.parametrize("scale_to", [32, 64, 200])
@pytest.mark.parametrize("number", [7, 2**63 - 1])
def test_no_words_are_clipped_or_overlap(words, number: int, scale_to: int) -> None:
    title, subtitle = "A title " * 12 + "with-one-word-" * 12, "and many words below it " * 20
    items = [item(number - place, verdict=verdict, corrected=True) for place, verdict in enumerate(Verdict)]
    sheet = contact_sheet(items, title, subtitle, columns=2, scale_to=scale_to, limits=limits())
    assert paper_around(sheet)
    assert " ".join(title.split()) in " ".join(line for _, line, _ in words)
    for (left, top, right, bottom), line, (width, height) in words:
        assert min(left, top) >= 0, line
        assert right <= width, line
        assert bottom <= height, line
    for place, (one, line, canvas) in enumerate(words):
        for other, text, beside in words[place + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert canvas != beside or apart, (line, text)


def test_captions_hold_id_verdict_and_deciding_score(words) -> None:
    contact_sheet([item(41, verdict="reject", score=455.0)], "t", limits=limits())
    lines = [line for _, line, _ in words]
    assert "41 reject" in lines
    assert f"{SCORE} 455" in lines


def test_deciding_score_is_that_of_the_rule_behind_the_verdict() -> None:
    (soft,) = limits()
    hard = soft.model_copy(update={"rule": "hard", "score": "cla/layer_1", "action": Verdict.REJECT})
    scores = {SCORE: 400.0, "cla/layer_1": 0.123456, "never_seen_active": float("nan")}
    both = record(1, "reject").model_copy(update={"scores": scores, "reasons": ("over_limit:low_rate", "over_limit:hard")})
    assert module._deciding_score(both, [soft, hard]) == "cla/layer_1 0.1235"
    assert module._deciding_score(both.model_copy(update={"reasons": ()}), [soft, hard]) == f"{SCORE} 400"
    unknown = soft.model_copy(update={"score": "never_seen_active"})
    assert module._deciding_score(both, [unknown]) == "never_seen_active not finite"
    assert module._deciding_score(both.model_copy(update={"scores": {}}), [soft]) == f"{SCORE} missing"
    assert module._deciding_score(both, []) == ""


def test_rows_below_each_other() -> None:
    chosen = item(3, verdict="correct", corrected=True)
    sheet = contact_sheet([chosen], "t", scale_to=SIDE)
    generated, corrected = picture(chosen.image, SIDE), picture(chosen.corrected, SIDE)
    heat = blend_heat(generated, chosen.heatmap, float(chosen.heatmap.max()))
    corners = [where(sheet, part) for part in (generated, corrected, heat)]
    assert None not in corners
    assert len({x for x, _ in corners}) == 1
    assert [y for _, y in corners] == sorted({y for _, y in corners})


def test_verdict_gives_the_strip_its_color() -> None:
    for verdict, color in VERDICT_COLORS.items():
        pixels = np.asarray(contact_sheet([item(3, verdict=verdict)], "t", scale_to=SIDE))
        assert (pixels == [int(color[at : at + 2], 16) for at in (1, 3, 5)]).all(axis=2).sum() >= SIDE


def test_no_corrected_row_where_nothing_was_tried(words) -> None:
    contact_sheet([item(1)], "t")
    assert "corrected" not in [line for _, line, _ in words]
    words.clear()
    contact_sheet([item(1), item(2, corrected=True)], "t")
    lines = [line for _, line, _ in words]
    assert {"generated", "corrected", "low-rate", "neurons"} <= set(lines)
    assert lines.count("none tried") == 1


def test_wraps_into_lines_of_cells() -> None:
    items = [item(number) for number in range(5)]
    wide, narrow = contact_sheet(items, "t", columns=5), contact_sheet(items, "t", columns=2)
    assert wide.width > narrow.width
    assert wide.height < narrow.height
    assert all(where(narrow, picture(one.image, 128)) for one in items)
    assert contact_sheet(items, "t", columns=50).size == wide.size


def test_compact_shows_images_and_ids_only(words) -> None:
    items = [item(number, corrected=True) for number in range(60)]
    sheet = contact_sheet(items, "Sixty", compact=True, scale_to=SIDE)
    assert sorted(line for _, line, _ in words) == sorted(["Sixty", *map(str, range(60))])
    assert sheet.height < contact_sheet(items, "Sixty", scale_to=SIDE).height / 2
    assert all(where(sheet, picture(one.image, SIDE)) for one in items[::13])


def test_heat_is_scaled_to_the_sheet_and_says_so(words) -> None:
    hot, cool = item(1), item(2)
    cool = ExhibitItem(cool.role, cool.record, cool.image, None, cool.heatmap / 10)
    sheet = contact_sheet([hot, cool], "t", scale_to=SIDE)
    hottest = float(hot.heatmap.max())
    assert f"0 to {hottest:.2g}" in " ".join(line for _, line, _ in words)
    for one in (hot, cool):
        assert where(sheet, blend_heat(picture(one.image, SIDE), one.heatmap, hottest))


def test_unknown_heat_is_not_drawn_as_no_heat(words) -> None:
    contact_sheet([item(1, nan=True)], "t")
    lines = " ".join(line for _, line, _ in words)
    assert "not finite" in lines
    assert "share of the units" not in lines
    assert "No low-rate neuron" not in lines


def test_no_heat_at_all(words) -> None:
    cold = item(1)
    contact_sheet([ExhibitItem(cold.role, cold.record, cold.image, None, np.zeros_like(cold.heatmap))], "t")
    assert "No low-rate neuron fires" in " ".join(line for _, line, _ in words)


@pytest.mark.parametrize("size", [(28, 28), (64, 32), (300, 300), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_and_grayscale(size: tuple[int, int], channels: int) -> None:
    drawn = picture(smooth(1, size, channels), 128)
    assert max(drawn.size) == 128
    assert drawn.width * size[0] == drawn.height * size[1]
    assert drawn.mode == "RGB"
    if channels == 1:
        assert np.ptp(np.asarray(drawn).astype(int), axis=2).max() == 0
    assert contact_sheet([item(1, size=size, channels=channels, corrected=True)], "t").mode == "RGB"


def test_whole_factors_keep_the_pixels() -> None:
    image = smooth(1, (32, 32), 3)
    assert np.array_equal(np.asarray(picture(image, 128))[::4, ::4], image)


def test_same_exhibit_same_pixels() -> None:
    first, second = (contact_sheet([item(1, corrected=True)], "t", "s", limits=limits()) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_arguments_have_an_effect() -> None:
    items = [item(1, corrected=True), item(2)]
    plain = contact_sheet(items, "t").tobytes()
    others = [
        contact_sheet(items, "T"),
        contact_sheet(items, "t", "s"),
        contact_sheet(items, "t", columns=1),
        contact_sheet(items, "t", scale_to=96),
        contact_sheet(items, "t", limits=limits()),
        contact_sheet(items, "t", compact=True),
    ]
    assert all(other.tobytes() != plain for other in others)


def test_errors() -> None:
    with pytest.raises(InputError, match="nothing to put on a contact sheet"):
        contact_sheet([], "t")
    with pytest.raises(InputError, match="0 columns of 128 pixels"):
        contact_sheet([item(1)], "t", columns=0)
    with pytest.raises(InputError, match="12 columns of 8 pixels"):
        contact_sheet([item(1)], "t", scale_to=8)
    good = item(1)
    for bad in (good.image.astype(np.float32), good.image[:, :, 0], good.image[:, :, :2], good.image[:0]):
        with pytest.raises(InputError, match=r"uint8 \(height, width, channels\)"):
            contact_sheet([ExhibitItem(good.role, good.record, bad, None, good.heatmap)], "t")


def test_wrap_keeps_every_word_within_the_width() -> None:
    text = "one two three four five six seven eight nine ten"
    lines = wrap(text, font(12), 80)
    assert " ".join(lines) == text
    assert all(text_width(line, font(12)) <= 80 for line in lines)
    assert wrap("", font(12), 80) == []


VERDICTS = {ExhibitRole.CORRECTED: "correct", ExhibitRole.REJECTED: "reject"}


def exhibit(of_each: int = 2):
    roles = reversed(ExhibitRole)
    return [item(number, role, VERDICTS.get(role, "accept")) for role in roles for number in range(of_each)]


def test_every_role_has_a_key_and_words() -> None:
    assert {f"gallery/{role}" for role in ExhibitRole} == set(names.SHEET_KEYS)
    assert set(module._WORDS) == set(ExhibitRole)


def test_sheets_in_the_promised_order() -> None:
    assert tuple(exhibit_sheets(exhibit())) == names.SHEET_KEYS


def test_roles_without_samples_have_no_sheet() -> None:
    assert list(exhibit_sheets([item(1, ExhibitRole.REJECTED, "reject")])) == ["gallery/rejected"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """What was asked of each contact sheet, by its title."""
    calls: dict[str, dict] = {}
    monkeypatch.setattr(
        module,
        "contact_sheet",
        lambda items, title, subtitle, **rest: calls.update({title: {"items": items, "subtitle": subtitle, **rest}}),
    )
    return calls


def test_titles_count_and_subtitles_hold_the_rules(asked: dict[str, dict]) -> None:
    exhibit_sheets(exhibit(3), limits=limits())
    assert list(asked) == [
        "Best samples (3)",
        "Worst samples (3)",
        "Corrected samples (3)",
        "Rejected samples (3)",
        "Borderline samples (3)",
    ]
    assert all("low_rate_0.1 over 370: correct" in call["subtitle"] for call in asked.values())
    assert [one.record.id for one in asked["Best samples (3)"]["items"]] == [0, 1, 2]
    asked.clear()
    exhibit_sheets(exhibit(3))
    assert not any("Rules" in call["subtitle"] for call in asked.values())


def test_subtitles_of_a_score_whose_low_values_are_bad(asked: dict[str, dict], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "SCORES", {"glow": scores.Score("glow", higher_is_worse=False)})
    exhibit_sheets(exhibit(3), limits=[limits()[0].model_copy(update={"score": "glow"})])
    assert (
        asked["Best samples (3)"]["subtitle"]
        == "Accepted samples with the highest scores, the highest first. Rules: glow under 370: correct."
    )
    assert asked["Corrected samples (3)"]["subtitle"].startswith("Samples under a limit whose correction passed, the lowest score first")


def test_many_samples_to_compare_are_shown_compactly(asked: dict[str, dict]) -> None:
    exhibit_sheets(exhibit(25))
    assert [call["compact"] for call in asked.values()] == [True, True, False, False, False]
    asked.clear()
    exhibit_sheets(exhibit(24))
    assert not any(call["compact"] for call in asked.values())


def test_empty_exhibit() -> None:
    with pytest.raises(InputError, match="no exhibit to show"):
        exhibit_sheets([])


def unit(caption: str, hot: float = 1.0, images: int = 2) -> UnitPictures:
    gray = np.full((16, 16, 3), 120, dtype=np.uint8)
    heat = np.zeros((16, 16), dtype=np.float32)
    heat[4:12, 4:12] = hot
    return UnitPictures(caption, gray, [gray] * images, [heat] * images)


def test_one_column_a_unit_and_two_rows_an_image() -> None:
    one, six = unit_sheet([unit("a")], "Units"), unit_sheet([unit(name) for name in "abcdef"], "Units")
    assert six.width > one.width
    assert unit_sheet([unit("a", images=3)], "Units").height > one.height
    assert unit_sheet([unit(name) for name in "abcdef"], "Units", columns=1).height > six.height


def test_heat_is_coloured_and_silence_is_not() -> None:
    def colours(sheet) -> int:
        pixels = np.asarray(sheet).astype(int)
        return int((np.ptp(pixels, axis=2) > 40).sum())

    assert colours(unit_sheet([unit("a")], "Units")) > 1000
    assert colours(unit_sheet([unit("a", hot=0.0)], "Units")) < 1000


def test_no_units() -> None:
    with pytest.raises(InputError, match="nothing to put"):
        unit_sheet([], "Units")
