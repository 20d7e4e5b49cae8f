"""What people look at of a set of shards: exact where it counts, bounded where it only shows, and made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_helpers.making import Small, executor

from qualitygate import names
from qualitygate.gating.exhibit import choose
from qualitygate.produce import records as records_module
from qualitygate.produce.records import PROFILE, SURVEY, Records, read_survey
from qualitygate.produce.report import REPORT, ensure_report, read_gated
from qualitygate.produce.store import open_store
from qualitygate.records.gate import RuleLimit, Verdict
from qualitygate.reports.gate_report import report_page
from qualitygate.reports.material import EXHIBIT, Material, read_exhibit

IDS = range(10, 290)


@pytest.fixture(scope="module")
def made(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made") / "set"
    small.produce(place, ids=IDS)
    ensure_report(executor(small.job(place, ids=IDS), 1))
    return place


def survey(place: Path, **settings: Any) -> Any:
    return Records.of_finished(open_store(place)).survey(read_gated(place).summary.limits, **settings)


def whole(place: Path) -> pa.Table:
    files = pq.read_table(place / "manifest.parquet").to_pydict()["records"]
    return pa.concat_tables([pq.read_table(place / one) for one in files], promote_options="permissive")


def test_the_exhibit_is_what_would_be_chosen_of_all_records_at_once(small: Small, made: Path) -> None:
    table, rule = whole(made), read_gated(made).summary.limits[0]
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    chosen = choose(columns[rule.score], columns[names.VERDICT], columns[names.BORDERLINE])
    shown = {one.record.id: one for one in read_exhibit(made / EXHIBIT)}
    for role, rows in chosen.items():
        assert {one for one, item in shown.items() if role in item.roles} == set(columns[names.ID][rows].tolist())
    assert len(shown) > 24


def test_its_records_are_those_of_the_gate(small: Small, made: Path) -> None:
    stage = small.source().open("cpu").stage
    ids = sorted(one.record.id for one in read_exhibit(made / EXHIBIT))
    fresh = {record.id: record for record in stage.records(next(stage.blocks(ids)))}
    for one in read_exhibit(made / EXHIBIT):
        again = fresh[one.record.id]
        assert one.record.scores == pytest.approx(again.scores, nan_ok=True)
        assert one.record.model_copy(update={"scores": {}, "moved": None}) == again.model_copy(update={"scores": {}, "moved": None})
        assert (one.corrected is not None) == bool(again.trials)


def test_a_survey_is_a_sample_with_exact_counts(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits, table = read_gated(made).summary.limits, whole(made)
    everything, chosen, _ = survey(made)
    assert everything.columns[names.ID].tolist() == list(IDS)
    assert not everything.is_part
    monkeypatch.setattr(records_module, "_BATCH", 7)  # rows at once: nothing depends on it
    part, same, _ = survey(made, drawn=50)
    assert part.is_part
    assert (len(part.columns[names.ID]), part.samples) == (50, len(IDS))
    assert part.columns[names.ID].tolist() == sorted({*part.columns[names.ID]})
    rows = part.columns[names.ID] - IDS.start
    for name, column in part.columns.items():
        assert column.tolist() == [table[name][int(row)].as_py() for row in rows]
    assert {role: ids.tolist() for role, ids in same.items()} == {role: ids.tolist() for role, ids in chosen.items()}
    rule = limits[0]
    assert part.over == everything.over
    over = int((table[rule.score].to_numpy() > rule.limit).sum())
    assert 0 < over < len(IDS)
    assert part.over[rule.rule] == (over, len(IDS))


def test_the_page_says_what_was_drawn_and_what_it_cost(made: Path) -> None:
    page = (made / REPORT).read_text(encoding="utf8")
    for words in ("Verdict and rules", "a kept image, with the gate", "remaining layers", "Made again by"):
        assert words in page
    assert "drawn at random" not in page
    assert page.count("data-roles") == len(read_exhibit(made / EXHIBIT))
    surveyed, _, _ = survey(made, drawn=50)
    full = read_gated(made)
    part = type(full)(
        full.place, full.summary, surveyed.columns, full.calibration, full.units, full.exhibit, surveyed.samples, surveyed.over
    )
    page = report_page(Material(part))
    assert "Of 50 samples drawn at random from all 280." in page
    assert f"of {len(IDS)}</td>" in page  # what is over a limit is counted, not estimated


def test_it_is_made_once_and_a_set_without_it_gets_one(small: Small, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = small.job(tmp_path / "set", ids=range(64))
    ensure_report(executor(job, 1))
    assert not (tmp_path / "set").exists()  # nothing to tell of yet
    small.produce(tmp_path / "set", ids=range(64))
    old = report_page(Material(read_gated(tmp_path / "set")))  # from its records, as `qualitygate report` does it
    assert "No samples were made again" in old
    assert "Samples by score" in old
    ensure_report(executor(job, 1))
    assert not (tmp_path / "set" / ".partial").exists()
    assert read_survey(tmp_path / "set" / SURVEY).samples == 64
    monkeypatch.setattr(records_module.Records, "survey", None)
    ensure_report(executor(job, 1))
    report_page(Material(read_gated(tmp_path / "set")))


@pytest.mark.slow
def test_a_set_in_an_object_store_has_its_page_there(small: Small, bucket: str) -> None:
    place, ids = bucket.format("reported"), range(64)
    small.produce(place, ids=ids)
    ensure_report(executor(small.job(place, ids=ids), 1))
    store = open_store(place)
    assert {REPORT, EXHIBIT, SURVEY, "gallery", "figures", PROFILE} <= set(store.names(""))
    assert {"best.png", "worst.png"} <= set(store.names("gallery"))
    assert store.names(".partial") == []
    gated = read_gated(place)
    assert gated.columns[names.ID].tolist() == list(ids)
    assert gated.exhibit
    assert gated.calibration
    assert gated.over


def test_what_is_not_finite_is_over_no_limit() -> None:
    """Such samples are rejected for that alone: more samples over a limit than have a score would be no share."""
    limit = RuleLimit(rule="low_rate", score="s", limit=1.0, source="policy", action=Verdict.CORRECT)
    scores = pa.table({"s": [0.5, 2.0, float("inf"), float("-inf"), float("nan")]})
    assert records_module._counted_over(scores, [limit], {"low_rate": (0, 0)}) == {"low_rate": (1, 2)}
