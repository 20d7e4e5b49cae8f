"""One sheet for each role, under the promised keys."""

from __future__ import annotations

import pytest
from reports.made_up import item, limits

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.records.gate import ExhibitRole
from qualitygate.reports import sheets as module
from qualitygate.reports.sheets import exhibit_sheets

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


def test_many_samples_to_compare_are_shown_compactly(asked: dict[str, dict]) -> None:
    exhibit_sheets(exhibit(25))
    assert [call["compact"] for call in asked.values()] == [True, True, False, False, False]
    asked.clear()
    exhibit_sheets(exhibit(24))
    assert not any(call["compact"] for call in asked.values())


def test_empty_exhibit() -> None:
    with pytest.raises(InputError, match="no exhibit to show"):
        exhibit_sheets([])
