"""Labels from all three forms, what is refused, and what stands in for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qualitygate.errors import InputError
from qualitygate.units.labels import Answer, Labels, id_of, majority, pseudo_labels, read_answers, read_labels, write_answers


def by_id(labels: Labels) -> dict[int, bool]:
    return dict(zip(labels.ids.tolist(), labels.artifact.tolist(), strict=True))


def annotated(sample: int, *choices: str, **data: object) -> dict:
    result = [{"type": "choices", "from_name": "label", "value": {"choices": [one]}} for one in choices]
    return {"id": 900 + sample, "data": {"sample_id": sample, **data}, "annotations": [{"completed_by": 3, "result": result}]}


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label,rater\n7,Artifact,ann\n3,normal,\n9,,ann\n7,artifact,bob\n", encoding="utf-8-sig")
    assert read_answers(path) == [Answer(7, "artifact", "ann"), Answer(3, "normal", ""), Answer(7, "artifact", "bob")]
    labels = read_labels(path)
    assert by_id(labels) == {3: False, 7: True}
    assert labels.counts == {"artifact": 1, "normal": 1}


def test_label_studio_whole(tmp_path: Path) -> None:
    cancelled = {"was_cancelled": True, "result": [{"type": "choices", "value": {"choices": ["normal"]}}]}
    tasks = [annotated(4, "artifact"), annotated(5, "normal"), annotated(6)]
    tasks[0]["annotations"].append(cancelled)
    tasks.append({"data": {"image": "/data/upload/1/ab12-00000011.png"}, "annotations": annotated(0, "normal")["annotations"]})
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert read_answers(tmp_path / "export.json") == [Answer(4, "artifact", "3"), Answer(5, "normal", "3"), Answer(11, "normal", "3")]


def test_label_studio_minimal(tmp_path: Path) -> None:
    tasks = [
        {"sample_id": 4, "image": "x.png", "label": "artifact", "annotator": 1, "id": 7},
        {"image": "/data/upload/1/ab12-00000012.png", "label": "normal", "annotator": {"id": 2, "email": "a@b"}},
        {"sample_id": 8, "image": "y.png", "annotator": 1},
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert read_answers(tmp_path / "export.json") == [Answer(4, "artifact", "1"), Answer(12, "normal", "a@b")]


def test_two_folders(tmp_path: Path) -> None:
    for name in ("artifact/00000003.png", "artifact/notes.txt", "normal/sheet-00000004.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert by_id(read_labels(tmp_path)) == {3: True, 4: False}


def test_the_majority_counts_and_contradictions_are_left_out() -> None:
    answers = [Answer(1, "artifact"), Answer(1, "artifact"), Answer(1, "normal"), Answer(2, "artifact"), Answer(2, "normal")]
    labels = majority(answers, "here")
    assert by_id(labels) == {1: True}
    assert labels.contradictions == (2,)
    with pytest.raises(InputError, match="decide nothing"):
        majority(answers[3:], "here")


def test_unknown_ids_are_an_error() -> None:
    with pytest.raises(InputError, match="2 unknown ids: 5, 6"):
        majority([Answer(1, "normal"), Answer(5, "normal"), Answer(6, "normal")], "here", known=[1, 2])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.csv", "id,label\n", "Nobody has labelled"),
        ("labels.csv", "sample,label\n1,normal\n", "not a table of labels"),
        ("labels.csv", "id,label\n1,good\n", "no such label"),
        ("labels.csv", "id,label\nx,normal\n", "no sample id"),
        ("export.json", "{}", "not an export of Label Studio"),
        ("export.json", "[1]", "not an export of Label Studio"),
        ("export.json", "[{", "not an export of Label Studio"),
        ("export.json", '[{"image": "face.png", "label": "normal"}]', "does not say which sample"),
        ("export.json", '[{"data": {"sample_id": 1}, "annotations": [{}]}]', "not an export of Label Studio"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_answers(tmp_path / name)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labels at"):
        read_answers(tmp_path / "missing.csv")
    (tmp_path / "artifact").mkdir()
    with pytest.raises(InputError, match="no folder normal"):
        read_answers(tmp_path)


def test_written_and_read_back(tmp_path: Path) -> None:
    answers = [Answer(7, "artifact", "a, b"), Answer(3, "normal", "")]
    write_answers(tmp_path / "labels.csv", answers)
    assert read_answers(tmp_path / "labels.csv") == sorted(answers)


def test_the_extremes_stand_in() -> None:
    score = np.array([3.0, np.nan, 1.0, 2.0, 9.0, 0.0])
    labels = pseudo_labels(np.array([30, 31, 32, 33, 34, 35]), score, 2, "low_rate_0.3")
    assert by_id(labels) == {30: True, 34: True, 32: False, 35: False}
    assert labels.source.startswith("nobody: the 2 highest and lowest of 5 by low_rate_0.3 stand in")
    with pytest.raises(InputError, match="Not enough samples"):
        pseudo_labels(np.arange(6), score, 3, "x")


def test_ids_in_names() -> None:
    assert id_of("00000012.png") == 12
    assert id_of("a/b/3f2a-00000012.jpg") == 12
    with pytest.raises(InputError, match="does not say which sample"):
        id_of("00000012-copy.png")
