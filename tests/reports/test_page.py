from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from reports.made_up import SCORE, item
from reports.page_material import HOSTILE, SAMPLES, gated, units
from small_records import metrics_report

from qualitygate import names, storage
from qualitygate.errors import InputError
from qualitygate.policy import scores
from qualitygate.records.dynamics import DynamicsRecord, SnapshotRecord
from qualitygate.records.gate import ExhibitRole
from qualitygate.records.metrics import GroupRow, Measurement
from qualitygate.reports.comparison import comparison_page, unit_moves
from qualitygate.reports.gate_report import report_page
from qualitygate.reports.material import Material, MeasuredMetrics, UnitPage, exhibit_columns, read_exhibit
from qualitygate.reports.tables import command_again, quantile_cell, rule_rows, set_rows

VOID = {"meta", "link", "img", "input", "br", "use", "path"}


class Page(HTMLParser):
    """Tags, attributes, words and ids of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def metrics(value: float = 0.6) -> MeasuredMetrics:
    one = Measurement(metric=names.PRECISION, value=value, low=value - 0.05, high=value + 0.05, samples=200, extractor="e", real="r")
    common = Measurement(metric=names.RARE_SHARE, value=0.1, low=0.0, high=0.2, samples=100)
    report = metrics_report(
        GroupRow(group=names.ALL, samples=200, what="all", measurements={names.PRECISION: one}),
        *(
            GroupRow(group=group, samples=100, what=group, measurements={names.PRECISION: one, names.RARE_SHARE: rare})
            for group, rare in ((names.ACCEPTED, common), (names.REJECTED, one.model_copy(update={"metric": names.RARE_SHARE})))
        ),
        samples=200,
        left_out=("path lengths: none",),
    )
    score = np.arange(200.0)
    return MeasuredMetrics(report, {"low_rate_0.1": score, names.REALISM: 2.0 - score / 200})


def dynamics() -> DynamicsRecord:
    snapshots = tuple(
        SnapshotRecord(
            checkpoint=f"s{at}",
            checkpoint_sha256=None,
            family=None,
            model_id=None,
            at=at,
            error=None,
            metrics={names.of_layer(names.CLA_MEAN, 1): at},
        )
        for at in (1.0, 2.0)
    )
    return DynamicsRecord(unit="kimg", settings={}, snapshots=snapshots, rising={}, alarms=("CLA rises <b>fast</b>",))


def full(checkpoint: str = "models/faces.pt") -> Material:
    from PIL import Image

    study = UnitPage(units(1).assign(joined_rank=0.5), {"Layer 0": Image.new("RGB", (1300, 400))})
    return Material(gated(checkpoint=checkpoint), metrics(), study, dynamics(), gated(2, "models/older.pt"))


@pytest.fixture(scope="module")
def everything() -> str:
    return report_page(full())


def test_the_page_is_well_formed_and_every_part_is_there(everything: str) -> None:
    page = Page(everything)
    assert not page.open
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    for section in ("verdict-and-rules", "scores", "gallery", "units", "metrics", "yield", "dynamics", "baseline", "again"):
        assert section in ids
    for words in (
        "passed",
        "over 370 correct (quantile 0.9)",
        "cla/layer_1",
        "layer0/unit",
        "0.55 … 0.65",
        "mean realism",
        "Rejected: rare or wrong? MORE ARE RARE than of the accepted, and no more are wrong: in no real image's neighbourhood 0.40",
        "kimg",
        "alarm:",
        "older.pt",
        "qualitygate gate toy.pt --profile PROFILE --ids 5:6 --seed 1 --out sample-5",
    ):
        assert words in page.words


def test_links_lead_somewhere_and_nothing_is_loaded(everything: str) -> None:
    page = Page(everything)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert {link["href"] for link in page.of("a")} <= {f"#{one}" for one in ids}
    assert all((image["src"] or "").startswith("data:image/webp;base64,") for image in page.of("img"))
    assert all(image["alt"] for image in page.of("img"))
    addresses = [address for address in re.findall(r"https?://[^\"' <>)]*", everything) if "w3.org" not in address]
    assert not addresses
    policy = next(one["content"] for one in page.of("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_figures_follow_the_theme_and_keep_their_ids_apart(everything: str) -> None:
    assert "#1f2328" not in everything.split("</style>", 1)[1]
    assert "var(--ink)" in everything
    clips = re.findall(r'<clipPath id="([^"]*)"', everything)
    assert clips
    assert len(clips) == len(set(clips))


def test_names_that_are_not_ours_are_words_and_never_markup() -> None:
    text = report_page(full(HOSTILE))
    page = Page(text)
    assert len(page.of("script")) == 1
    assert "alert(1)" in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert "<b>fast" not in text
    both = comparison_page([Material(gated(checkpoint=HOSTILE)), Material(gated(2, HOSTILE))])
    assert len(Page(both).of("script")) == 1


def test_what_is_not_there_is_said() -> None:
    bare = gated(exhibit=False, passed=False)
    bare = type(bare)(bare.place, bare.summary, {}, {}, None, ())
    page = Page(report_page(Material(bare)))
    assert not page.open
    for words in (
        "failed",
        "batch/yield",
        "No samples were made again",
        "No set metrics were given",
        "No baseline was given",
        "nothing to draw",
        "no table of units",
    ):
        assert words in page.words


def test_a_sample_stands_once_with_all_its_roles(everything: str, tmp_path) -> None:
    tiles = [one for one in Page(everything).of("li") if "data-id" in one]
    assert [(one["data-id"], one["data-roles"]) for one in tiles] == [("3", "best"), ("5", "worst corrected"), ("8", "borderline")]
    items = [item(3), item(3, ExhibitRole.WORST)]
    storage.write_table(tmp_path / "exhibit.parquet", exhibit_columns(items))
    (one,) = read_exhibit(tmp_path / "exhibit.parquet")
    assert one.roles == (ExhibitRole.BEST, ExhibitRole.WORST)
    assert one.record == items[0].record
    assert one.corrected is None
    assert one.heat is not None


def test_a_hundred_large_samples_stay_under_five_megabytes() -> None:
    big = [item(number, ExhibitRole.CORRECTED, "correct", size=(256, 256), corrected=True) for number in range(100)]
    columns = exhibit_columns(big)
    assert sum(len(one) for name in ("image", "corrected", "heat") for one in columns[name]) * 4 / 3 < 4.5e6


def test_the_command_quotes_what_a_shell_would_run() -> None:
    record = item(7).record
    hostile = record.provenance.model_copy(update={"checkpoint": "a; rm -rf $HOME.pt", "seed": None})
    command = command_again(record.model_copy(update={"provenance": hostile}))
    assert "'a; rm -rf $HOME.pt'" in command
    assert "--latents LATENTS.npz" in command


def test_the_interval_of_a_quantile_covers_it_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        cell = quantile_cell(random.random(300), 0.9)
        low, high = (float(bound) for bound in cell.interval.split(" … "))
        hits += low <= 0.9 <= high
    assert hits >= 184  # 190 expected


def test_units_that_moved_up_are_found_by_layer_and_index() -> None:
    before = units(1)
    after = before.copy()
    after.loc[after[names.UNIT_KEY] == "layer1/unit4", names.UNIT_LOW_RATE] = 1e9
    place = int(before[before[names.LAYER] == 1][names.UNIT_LOW_RATE].rank(ascending=False)[16])
    first = unit_moves(before, after)[1][0]
    assert (first.key, first.after, first.up) == ("layer1/unit4", 1, place - 1)
    assert unit_moves(before.drop(columns=names.UNIT_LOW_RATE), after) == {}


def test_a_comparison_says_what_differs_beyond_chance() -> None:
    page = Page(comparison_page([Material(gated(), metrics(0.6)), Material(gated(2), metrics(0.9))]))
    assert not page.open
    for words in ("precision better", "the same within chance", "place in A", "gallery/worst", "0.85 … 0.95"):
        assert words in page.words
    assert len(set_rows([gated(), gated(2)])[0][1]) == 2


@pytest.mark.parametrize("count", [1, 7])
def test_a_comparison_of_too_few_or_too_many_is_refused(count: int) -> None:
    with pytest.raises(InputError, match="2 to 6"):
        comparison_page([Material(gated(exhibit=False))] * count)


def test_a_score_whose_low_values_are_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    """The side of a limit that is not kept, and which samples are the worst, are asked of the score."""
    glow = replace(scores.SCORES["low_rate"], name="glow", higher_is_worse=False)
    monkeypatch.setattr(scores, "SCORES", {**scores.SCORES, "glow": glow})
    rising = gated()
    (over,) = rising.summary.limits
    under = over.model_copy(update={"score": "glow_0.1", "limit": 200.0})
    column = rising.columns[SCORE]
    exhibit = [
        replace(one, record=one.record.model_copy(update={"scores": {"glow_0.1": one.record.scores[SCORE], SCORE: 0.0}}))
        for one in rising.exhibit
    ]
    falling = replace(
        rising,
        summary=rising.summary.model_copy(update={"limits": (under, over)}),
        columns={**rising.columns, "glow_0.1": column},
        calibration={"glow_0.1": column},
        exhibit=exhibit,
    )
    counts = f"{(column < 200).sum()} of {SAMPLES}", f"{(column > 370).sum()} of {SAMPLES}"
    assert [(side, count) for _, side, count in rule_rows(falling)] == [("under", counts[0]), ("over", counts[1])]
    page = Page(report_page(Material(falling, baseline=rising)))
    for words in (
        "a sample beyond it is",
        "under 200",
        f"limit 200 keeps {(column >= 200).mean():.1%}",
        "low_rate: under 200 correct",
        "low_rate: over 370 correct",
    ):
        assert words in page.words
    first = [page.words.partition(f"Worst of {which}")[2].split()[0] for which in ("this set", "the baseline")]
    assert first == ["3", "5"], "of 215, 396 and 220 the lowest, and the highest"
