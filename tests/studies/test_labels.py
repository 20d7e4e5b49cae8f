"""The second, blind round of labels: which is which stays hidden, and shares that can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qualitygate.errors import InputError
from qualitygate.storage import image_name
from qualitygate.studies.labels.run import RoundTask as Task
from qualitygate.studies.labels.run import SecondRound, make_round, read_round, read_round_answers, round_summary, write_round
from qualitygate.units.labels import Answer

IDS = list(range(40, 52))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Images before (dark) and after (bright) a correction, 4×4 gray."""
    for where, value in (("before", 10), ("after", 200)):
        (tmp_path / "study" / where).mkdir(parents=True)
        for one in IDS:
            Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / "study" / where / image_name(one))
    kept = {"correction": "zero_ablation", "chosen": "made up", "ids": IDS, "passed": IDS[:3]}
    (tmp_path / "study" / "kept.json").write_text(json.dumps(kept))
    return tmp_path / "study"


def test_the_folder_does_not_say_which_is_which(study: Path, tmp_path: Path) -> None:
    asked = make_round(study)
    write_round(study, asked, tmp_path / "round")
    assert read_round(tmp_path / "round") == asked
    assert len(asked.tasks) == 3 * len(IDS)
    assert sorted(set(asked.tasks), key=str) == sorted(asked.tasks, key=str)
    assert {task.shows for task in asked.tasks if task.pair} == {"before", "after"}
    assert [task.sample for task in asked.tasks] != sorted(task.sample for task in asked.tasks)
    seen = "".join((tmp_path / "round" / name).read_text() for name in ("labels.csv", "tasks.json"))
    assert "after" not in seen
    assert "before" not in seen
    for number, task in enumerate(asked.tasks):
        pixels = np.asarray(Image.open(tmp_path / "round" / "images" / image_name(number)))
        assert pixels.shape == ((4, 16) if task.pair else (4, 4))
        assert pixels[0, 0] == (200 if task.shows == "after" else 10)
        assert pixels[0, -1] == (200 if (task.shows == "after") != task.pair else 10)
    assert make_round(study, seed=1).tasks != asked.tasks


def test_shares_by_hand() -> None:
    tasks = (Task(1, "before", False), Task(1, "after", False), Task(2, "after", False), Task(1, "after", True), Task(2, "before", True))
    asked = SecondRound("some", (1,), tasks)
    ann = [(0, "artifact"), (1, "normal"), (2, "artifact"), (3, "left"), (4, "same")]
    bob = [(0, "artifact"), (1, "normal"), (2, "normal"), (3, "left"), (4, "right")]
    found = round_summary(asked, [Answer(*one, who) for who, said in (("ann", ann), ("bob", bob)) for one in said])
    assert found["raters"]["ann"] == {"corrected": 0.5, "normal_before": 0.0, "improved": 0.5}
    assert found["raters"]["bob"] == {"corrected": 1.0, "normal_before": 0.0, "improved": 1.0}
    assert (found["corrected"], found["improved"]) == (0.75, 0.75)
    assert found["corrected_spread"] == pytest.approx(0.5**0.5 / 2)
    assert found["of_passed"]["corrected"] == 1.0
    nobody = round_summary(asked, [Answer(0, "normal", "ann")])
    assert nobody["corrected"] is None
    assert nobody["normal_before_spread"] is None


def test_answers_to_the_wrong_question(study: Path, tmp_path: Path) -> None:
    asked = make_round(study)
    single = next(number for number, task in enumerate(asked.tasks) if not task.pair)
    for line, words in ((f"{single},left", "another question"), ("99,normal", "does not exist"), (f"{single},ugly", "no such label")):
        (tmp_path / "a.csv").write_text(f"id,label\n{line}\n")
        with pytest.raises(InputError, match=words):
            read_round_answers(tmp_path / "a.csv", asked)
    with pytest.raises(InputError, match="holds no images before and after"):
        make_round(tmp_path)
