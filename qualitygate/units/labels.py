"""Which samples are artifacts, as people said it: from a table, from Label Studio's export, or from two folders of images."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qualitygate.errors import InputError

ARTIFACT, NORMAL = "artifact", "normal"
LABELS = (ARTIFACT, NORMAL)
SAMPLE = "sample_id"
"""Where a task of Label Studio says which sample it shows."""

_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_FORMS = "a CSV file with columns id and label, Label Studio's JSON export, or a folder with folders artifact/ and normal/"


class Answer(NamedTuple):
    """What one person said of one sample."""

    id: int
    label: str
    rater: str = ""


@dataclass(frozen=True)
class Labels:
    """Which samples are artifacts, bool (N,), and which are normal: ids int64 (N,), each once, rising; who says so, in words; and the ids
    that as many people called an artifact as normal, which are left out."""

    ids: np.ndarray
    artifact: np.ndarray
    source: str
    contradictions: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> dict[str, int]:
        artifacts = int(self.artifact.sum())
        return {ARTIFACT: artifacts, NORMAL: len(self) - artifacts}


def read_labels(path: str | Path) -> Labels:
    """Labels of a file or folder; where people contradict each other the majority counts. Raises as `read_answers`."""
    return majority(read_answers(path), str(path))


def read_answers(path: str | Path, allowed: Sequence[str] = LABELS) -> list[Answer]:
    """Every answer of a file or folder; the labels may be in any case.

    - CSV with columns ``id`` and ``label`` and, if several people answered, ``rater``; a row with an empty label was not answered.
    - Label Studio's JSON export, whole or minimal. The sample is named by ``sample_id`` in a task's data, else by the digits at the end of
      the image's name.
    - A folder with folders ``artifact`` and ``normal`` of image files, whose names end in the id.

    Raises `InputError` for nothing there, another form, another label, or no answer in it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There are no labels at {path}", "no such file or folder", _FORMS)
    found = _of_folders(path) if path.is_dir() else _of_label_studio(path, allowed) if path.suffix.lower() == ".json" else _of_csv(path)
    answers = []
    for sample, text, rater, where in found:
        label = str(text).strip().lower()
        if label not in allowed:
            raise InputError("There is no such label", f"{text!r} in {where}", " or ".join(allowed))
        answers.append(Answer(sample, label, rater))
    if not answers:
        raise InputError(f"Nobody has labelled anything in {path}", "no answer", _FORMS)
    return answers


def majority(answers: Iterable[Answer], source: str, known: Iterable[int] | None = None) -> Labels:
    """One label a sample: the majority's; ids with as many answers for either are contradictions and left out. Raises `InputError` for an
    id that is not known (by default all are), or if no sample is left."""
    balance: Counter[int] = Counter()
    for answer in answers:
        balance[answer.id] += 1 if answer.label == ARTIFACT else -1
    if known is not None and (strange := sorted(balance.keys() - set(known))):
        unknown = f"{len(strange)} unknown ids: {', '.join(map(str, strange[:8]))}"
        remedy = "check that the labels belong to this checkpoint and these tasks"
        raise InputError(f"Labels of {source} are of samples that were not asked about", unknown, "ids of the tasks", remedy)
    ids = sorted(one for one, votes in balance.items() if votes)
    if not ids:
        raise InputError(f"The labels of {source} decide nothing", f"answers on {len(balance)} samples that cancel out", "a majority")
    artifact = np.array([balance[one] > 0 for one in ids])
    return Labels(np.array(ids, dtype=np.int64), artifact, source, tuple(sorted(balance.keys() - set(ids))))


def pseudo_labels(ids: np.ndarray, score: np.ndarray, count: int, name: str) -> Labels:
    """Labels where nobody has labelled: of the ids, int64 (N,), the ``count`` with the highest scores (N,) stand in for artifacts, those
    with the lowest for normal ones. A sample with NaN is in neither group. Raises `InputError` for not so many samples with a score."""
    scored = np.flatnonzero(~np.isnan(score))
    if count < 1 or 2 * count > len(scored):
        needed = "at least twice as many samples as a group has, and a group of at least 1"
        raise InputError("Not enough samples for two groups", f"{len(scored)} samples with {name}, groups of {count}", needed)
    order = scored[np.argsort(score[scored], kind="stable")]
    chosen = np.concatenate((order[:count], order[-count:]))
    source = f"nobody: the {count:,} highest and lowest of {len(scored):,} by {name} stand in for artifact and normal"
    by_id = chosen[np.argsort(ids[chosen], kind="stable")]
    return Labels(ids[by_id], np.isin(by_id, order[-count:]), source)


def write_answers(path: str | Path, answers: Iterable[Answer]) -> None:
    """Write answers as the CSV that `read_answers` reads, in order of id and rater."""
    with Path(path).open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Answer._fields)
        writer.writerows(sorted(answers))


def id_of(name: str) -> int:
    """The sample id at the end of an image's name: of ``…/3f2a-00000012.png`` 12. Raises `InputError` if there is none."""
    found = re.search(r"(?:^|[^0-9])(\d+)$", Path(name).stem)
    if found is None:
        raise InputError("The name of an image does not say which sample it is", name, "a name like 00000012.png")
    return int(found[1])


_Raw = tuple[int, str, str, str]  # sample, label as it was written, rater, and where it stands


def _of_csv(path: Path) -> Iterator[_Raw]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"Cannot read the labels of {path}", str(error), _FORMS) from error
    for line, row in enumerate(rows, start=2):
        if not {"id", "label"} <= row.keys():
            raise InputError(f"{path} is not a table of labels", f"columns {', '.join(filter(None, row))}", _FORMS)
        if (row["label"] or "").strip():
            where = f"{path}, line {line}"
            yield _id(row["id"], where), row["label"], row.get("rater") or "", where


def _of_folders(path: Path) -> Iterator[_Raw]:
    if missing := [name for name in LABELS if not (path / name).is_dir()]:
        raise InputError(f"{path} is not a folder of labels", f"no folder {' or '.join(missing)} in it", _FORMS)
    for label in LABELS:
        for image in sorted((path / label).iterdir()):
            if image.suffix.lower() in _IMAGES:
                yield id_of(image.name), label, "", str(path)


def _of_label_studio(path: Path, allowed: Sequence[str]) -> Iterator[_Raw]:
    try:
        tasks = json.loads(path.read_text(encoding="utf8"))
        if not isinstance(tasks, list):
            raise TypeError(f"a {type(tasks).__name__} at the top")
        for number, task in enumerate(tasks):
            where = f"{path}, task {number}"
            for data, label, who in _choices(task, where, allowed):
                rater = who.get("email") or who.get("id") if isinstance(who, Mapping) else who  # a number, or an object with one
                yield _sample(data, where), label, "" if rater is None else str(rater), where
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not an export of Label Studio", f"{type(error).__name__}: {error}", _FORMS) from error


def _choices(task: Mapping[str, Any], where: str, allowed: Sequence[str]) -> Iterator[tuple[Mapping[str, Any], str, Any]]:
    """Data, choice and rater: the full export has a list of people's annotations, each a list of results, the minimal one a flat object."""
    if "annotations" not in task:
        choices = [value for value in task.values() if isinstance(value, str) and value.strip().lower() in allowed]
        if len(choices) > 1:
            raise InputError("A task has several answers", where, "one choice a task")
        yield from ((task, choice, task.get("annotator")) for choice in choices)
        return
    for annotation in task["annotations"]:
        for result in () if annotation.get("was_cancelled") else annotation["result"]:
            if result.get("type") == "choices":
                (choice,) = result["value"]["choices"]
                yield task["data"], choice, annotation.get("completed_by")


def _sample(data: Mapping[str, Any], where: str) -> int:
    if SAMPLE in data:
        return _id(data[SAMPLE], where)
    images = [value for value in data.values() if isinstance(value, str) and Path(value).suffix.lower() in _IMAGES]
    if len(images) != 1:
        raise InputError("A task does not say which sample it shows", where, f"{SAMPLE} in its data, or one image")
    return id_of(images[0])


def _id(text: Any, where: str) -> int:
    if not str(text).strip().isdigit():
        raise InputError("This is no sample id", f"{text!r} in {where}", "a whole number, at least 0")
    return int(text)
