"""What a reviewer sees: the report, and MLflow's run page, artifacts, compare view, tables and images, in a real browser."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import conftest as cli_conftest
from cli.conftest import Call
from cli.real_report import write_real_report
from reports.page_material import gated
from reports.test_check_reports import outcome, record

from qualitygate.records.check import RuleState
from qualitygate.reports.check_page import check_page
from qualitygate.reports.comparison import comparison_page
from qualitygate.reports.gate_report import report_page
from qualitygate.reports.material import Material
from qualitygate.tracking.fetched import comparison_parcel
from qualitygate.tracking.gated_set import gated_parcel
from qualitygate.tracking.sending import Logged, send
from tests.browser.chromium import Browser, browser, executable
from tests.tracking.gated_folder import suite_result, write_gated_folder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(executable() is None, reason="no Chromium is installed: apt install chromium")]
PICTURES = os.environ.get("BROWSER_TEST_PICTURES")
"""Folder for pictures of what was seen, for people to look at."""
call = cli_conftest.call  # the fixture
WIDE = 2000
"""MLflow's own panel beside the page takes a third of less."""
LOADED = "[...document.images].every((one) => one.complete && one.naturalWidth > 0)"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = tmp_path / "report.html"
    path.write_text(report_page(Material(gated(), baseline=gated(2))), encoding="utf8")
    return path.as_uri()


def keep(tab: Browser, name: str) -> None:
    if PICTURES:
        tab.picture(Path(PICTURES) / f"{name}.png")


def test_the_report_opens_filters_and_enlarges_by_keyboard(tab: Browser, page: str) -> None:
    tab.errors.clear()
    tab.open(page, "document.querySelector('#count')?.textContent")
    assert "3 of 3 samples" in tab.text()
    assert tab.evaluate(LOADED)
    tab.evaluate("document.querySelector('input[value=corrected]').click()")
    assert "1 of 3 samples" in tab.text()
    tab.evaluate("document.querySelector('#tiles li:not([hidden]) button').focus()")
    tab.press("Enter")
    tab.wait("document.querySelector('#viewer').open")
    dialog = tab.evaluate("document.querySelector('#viewer').innerText")
    for words in ("Sample 5: correct", "low-rate neurons", "--ids 5:6 --seed 1", "over_limit:low_rate"):
        assert words in dialog
    tab.press("ArrowRight")
    keep(tab, "report-enlarged")
    tab.press("Escape")
    tab.wait("!document.querySelector('#viewer').open")
    assert tab.evaluate("document.activeElement.className") == "tile-pictures"
    assert tab.errors == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_report_fits_a_phone_and_follows_the_theme(tab: Browser, page: str, dark: bool) -> None:
    tab.open(page, "document.querySelector('#count')?.textContent", width=390, height=800, dark=dark)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    red = int(tab.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
    assert (red < 60) is dark
    ink = tab.evaluate("getComputedStyle(document.querySelector('.plot text')).fill")
    assert (int(ink.split("(")[1].split(",")[0]) > 100) is dark
    keep(tab, f"phone-{'dark' if dark else 'light'}")


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_of_a_check_fits_a_phone_and_follows_the_theme(tab: Browser, tmp_path: Path, dark: bool) -> None:
    rules = [outcome(state.value, state, note="an_advice_of_one_very_long_word" * 4) for state in RuleState]
    rules = [one.model_copy(update={"excess": None}) if one.state is RuleState.LEFT_OUT else one for one in rules]
    (path := tmp_path / "check.html").write_text(check_page(record(*rules), "batch: []"), encoding="utf8")
    tab.errors.clear()
    tab.open(path.as_uri(), "document.querySelector('#again')", width=390, height=800, dark=dark)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    ink = tab.evaluate("getComputedStyle(document.querySelector('.plot text')).fill")
    assert (int(ink.split("(")[1].split(",")[0]) > 100) is dark
    assert "What to look at" in tab.text()
    assert tab.errors == []
    keep(tab, f"check-phone-{'dark' if dark else 'light'}")


def test_what_the_commands_wrote_opens_without_errors(tab: Browser, call: Call, tmp_path: Path) -> None:
    made = write_real_report(call, tmp_path)
    pages = {"real": made.page, "sharded": made.sharded / "report.html", "compared": made.comparison}
    for name, page in pages.items():
        assert page.stat().st_size < 5e6
        for width in (1280, 390):
            tab.errors.clear()
            tab.open(page.as_uri(), "document.readyState === 'complete'", width=width)
            tab.wait("document.images.length > 0")
            assert tab.evaluate(LOADED)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.errors == []
            keep(tab, f"{name}-{width}")
        if name != "compared":
            tab.evaluate("document.querySelector('#tiles button').click()")
            tab.wait("document.querySelector('#viewer').open")
            assert tab.evaluate(LOADED)


# MLflow


@pytest.fixture(scope="module")
def runs(server: str, tmp_path_factory: pytest.TempPathFactory) -> list[Logged]:
    """Two checkpoints' gates, the second of which failed, each with its report."""
    folder = tmp_path_factory.mktemp("sets")
    logged = []
    for seed, failed in ((1, ()), (2, ("yield",))):
        place = write_gated_folder(folder / str(seed), seed=seed, suite=suite_result(*failed), checkpoint=f"faces-{seed}.pt")
        (place / "report.html").write_text(report_page(Material(gated(seed, f"faces-{seed}.pt", not failed))), encoding="utf8")
        logged.append(send(gated_parcel(place), server, "faces"))
    return logged


def test_the_run_page_opens_on_a_written_summary(tab: Browser, server: str, runs: list[Logged]) -> None:
    run = runs[1]
    tab.open(
        f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}", "document.body.innerText.includes('failed yield')", width=WIDE
    )
    for words in ("Failed", "yield", "report.html", "rule.low_rate.limit", "accepted_share"):
        assert words in tab.text()
    keep(tab, "mlflow-run")


def test_the_report_opens_inside_mlflow(tab: Browser, server: str, runs: list[Logged]) -> None:
    run = runs[0]
    tab.errors.clear()
    tab.open(
        f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/report.html",
        "document.querySelector('iframe')",
        width=WIDE,
    )
    assert "unit_ranking.json" in tab.text()
    keep(tab, "mlflow-report")
    assert not [error for error in tab.errors if "Content Security Policy" in error]


def test_two_runs_compare_by_the_same_names(tab: Browser, server: str, runs: list[Logged]) -> None:
    ids = json.dumps([run.run_id for run in runs])
    address = f"{server}/#/compare-runs?runs={ids}&experiments={json.dumps([runs[0].experiment_id])}"
    tab.open(address, "document.body.innerText.includes('accepted_share')", width=WIDE, height=1600)
    for words in ("Comparing 2 Runs", "yield", "rule.low_rate.limit"):
        assert words in tab.text()
    keep(tab, "mlflow-compare")


def test_tables_and_images_stand_side_by_side(tab: Browser, server: str, runs: list[Logged]) -> None:
    home = f"{server}/#/experiments/{runs[0].experiment_id}/runs"
    tab.open(f"{home}?compareRunsMode=CHART", "document.body.innerText.includes('gallery')", width=WIDE, height=1800)
    tab.wait(f'document.querySelectorAll(\'img[src*="get-artifact"], img[src*="blob:"]\').length >= 2 && {LOADED}')
    keep(tab, "mlflow-images")
    tab.open(f"{home}?compareRunsMode=ARTIFACT", "document.body.innerText.includes('layer1/unit')", width=WIDE)
    keep(tab, "mlflow-tables")


def test_a_comparison_is_a_run_of_its_own(tab: Browser, server: str, runs: list[Logged], tmp_path: Path) -> None:
    page = tmp_path / "comparison.html"
    page.write_text(comparison_page([Material(gated()), Material(gated(2))]), encoding="utf8")
    ids = [run.run_id for run in runs]
    run_id = send(comparison_parcel(page, ids, "B is **worse**."), server, "faces").run_id
    assert send(comparison_parcel(page, ids, "B is **worse**."), server, "faces").run_id == run_id
    tab.errors.clear()
    tab.open(page.as_uri(), "document.querySelector('h2')")
    assert "place in A" in tab.text()
    assert tab.evaluate(LOADED)
    assert tab.errors == []
    keep(tab, "comparison")
    tab.open(f"{server}/#/experiments/{runs[0].experiment_id}/runs/{run_id}", "document.body.innerText.includes('is worse')", width=WIDE)
