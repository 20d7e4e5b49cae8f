"""The method pages: each has its formula and its picture, and ``docs/figures.py`` makes every one of these pictures."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from small import small_dcgan
from small_policy import small_policy

sys.path.append(str(Path(__file__).parents[2] / "docs"))  # after the tests: `reference` is there too

from drawing.look import MOST_BYTES
from drawing.low_rate_neurons import low_rate_ranked, low_rate_rates
from drawing.metrics import metrics_balls
from drawing.subject import Subject
from figures import FIGURES, OTHERS

from qualitygate.gating.calibrate import calibrate

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "methods").glob("*.md"))
_PICTURE = re.compile(r"!\[(?P<words>[^\]]*)\]\((?P<path>[^)]+)\)")
_FORMULA = re.compile(r"^ {4}\S.*[=∈≤]", re.MULTILINE)


def pictures(page: Path) -> dict[Path, str]:
    """File of each picture that a page shows, with the words in its place."""
    text = page.read_text(encoding="utf8")
    return {(page.parent / found["path"]).resolve(): found["words"] for found in _PICTURE.finditer(text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_a_formula_and_pictures_that_exist(page: Path) -> None:
    assert _FORMULA.search(page.read_text(encoding="utf8")), f"{page.name} has no formula: a block indented by four"
    shown = pictures(page)
    assert shown, f"{page.name} shows no picture"
    for file, words in shown.items():
        assert file.is_file(), f"{page.name} shows {file.name}, which does not exist"
        assert len(words) > 20, f"{file.name} needs words for those who do not see it"


def test_the_script_knows_every_picture_and_every_picture_is_shown() -> None:
    shown = {file.name for page in PAGES for file in pictures(page)}
    assert shown - OTHERS.keys() == FIGURES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_is_small_solid_and_of_its_page(name: str) -> None:
    file = DOCS / "images" / name
    page = next(page for page in PAGES if name.startswith(page.stem))
    assert file.resolve() in pictures(page)
    assert file.stat().st_size <= MOST_BYTES
    with Image.open(file) as image:
        assert image.width <= 1400
        assert image.convert("RGBA").getextrema()[3] == (255, 255), "a dark page would shine through"


@pytest.fixture(scope="module")
def subject() -> Subject:
    generator = small_dcgan()
    return Subject(generator, lambda: calibrate(generator, small_policy()))


@pytest.mark.parametrize("make", [metrics_balls, low_rate_rates])
def test_a_picture_can_be_made(subject: Subject, make: Callable[[Subject], bytes]) -> None:
    assert Image.open(io.BytesIO(make(subject))).width == 1400


def test_a_picture_is_made_again_the_same(subject: Subject) -> None:
    assert low_rate_ranked(subject) == low_rate_ranked(subject)
