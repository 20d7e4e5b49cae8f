"""Which samples are artifacts, as people said it: from a table, from Label Studio's export, or from two folders of images."""

from __future__ import annotations

import csv
import json
import re
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

_ID_IN_NAME = re.compile(r"(?:^|[^0-9])(\d+)$")
_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_FORMS = "a CSV file with columns id and label, Label Studio's JSON export, or a folder with folders artifact/ and normal/"


class Answer(NamedTuple):
    """What one person said of one sample."""

    id: int
    label: str
    rater: str = ""


@dataclass(frozen=True)
class Labels:
    """Which samples are artifacts and which are normal.

    Attributes:
        ids: int64 (N,), each once, rising.
        artifact: bool (N,).
        source: where the labels come from, in words.
        contradictions: ids that as many people called an artifact as normal; they are left out.
        answers: how many answers they were made from.
    """

    ids: np.ndarray
    artifact: np.ndarray
    source: str
    contradictions: tuple[int, ...] = ()
    answers: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> dict[str, int]:
        """Samples of each label."""
        artifacts = int(self.artifact.sum())
        return {ARTIFACT: artifacts, NORMAL: len(self) - artifacts}


def read_labels(path: str | Path, known: Iterable[int] | None = None) -> Labels:
    """Labels of a file or folder; where people contradict each other the majority counts.

    Args:
        path: see `read_answers`.
        known: ids that may be labelled; by default any.

    Raises:
        InputError: see `read_answers`; an id that is not known.
    """
    return settled(read_answers(path), str(path), known)


def read_answers(path: str | Path, answers_are: Sequence[str] = LABELS) -> list[Answer]:
    """Every answer of a file or folder.

    - CSV with columns ``id`` and ``label`` and, if several people answered, ``rater``; a row with an empty label was not answered.
    - Label Studio's JSON export, whole or minimal. The sample is named by ``sample_id`` in a task's data, else by the digits at the end of
      the image's name.
    - A folder with folders ``artifact`` and ``normal`` of image files, whose names end in the id.

    Labels are in any case.

    Args:
        path: the file or folder.
        answers_are: the labels that there are.

    Raises:
        InputError: nothing there, another form, another label, or no answer in it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There are no labels at {path}", "no such file or folder", _FORMS)
    if path.is_dir():
        answers = list(_of_folders(path))
    elif path.suffix.lower() == ".json":
        answers = list(_of_label_studio(path, answers_are))
    else:
        answers = list(_of_csv(path, answers_are))
    if not answers:
        raise InputError(f"Nobody has labelled anything in {path}", "no answer", _FORMS)
    return answers


def settled(answers: Iterable[Answer], source: str, known: Iterable[int] | None = None) -> Labels:
    """One label a sample: the majority's; ids with as many answers for either are contradictions and left out.

    Raises:
        InputError: an id that is not known, or no sample is left.
    """
    votes: dict[int, int] = {}
    count = 0
    for answer in answers:
        votes[answer.id] = votes.get(answer.id, 0) + (1 if answer.label == ARTIFACT else -1)
        count += 1
    if known is not None and (strange := sorted(votes.keys() - set(known))):
        raise InputError(
            f"Labels of {source} are of samples that were not asked about",
            f"{len(strange)} unknown ids: {', '.join(map(str, strange[:8]))}",
            "ids of the tasks",
            "check that the labels belong to this checkpoint and these tasks",
        )
    ids = sorted(one for one, balance in votes.items() if balance)
    if not ids:
        raise InputError(f"The labels of {source} decide nothing", f"{count} answers that cancel out", "a majority")
    artifact = np.array([votes[one] > 0 for one in ids])
    contradictions = tuple(sorted(votes.keys() - set(ids)))
    return Labels(np.array(ids, dtype=np.int64), artifact, source, contradictions, count)


def standing_in(ids: np.ndarray, score: np.ndarray, count: int, name: str) -> Labels:
    """Labels where nobody has labelled: the samples with the highest scores stand in for artifacts, those with the lowest for normal ones.

    Args:
        ids: int64 (N,).
        score: (N,), higher = worse; a sample with NaN is in neither group.
        count: samples of each group.
        name: what the score is called; the source says it.

    Raises:
        InputError: not so many samples with a score.
    """
    scored = np.flatnonzero(~np.isnan(score))
    if count < 1 or 2 * count > len(scored):
        raise InputError(
            "Not enough samples for two groups",
            f"{len(scored)} samples with {name}, groups of {count}",
            "at least twice as many samples as a group has, and a group of at least 1",
        )
    order = scored[np.argsort(score[scored], kind="stable")]
    chosen = np.concatenate((order[:count], order[-count:]))
    artifact = np.repeat([False, True], count)
    by_id = np.argsort(ids[chosen], kind="stable")
    source = f"nobody: the {count:,} highest and lowest of {len(scored):,} by {name} stand in for artifact and normal"
    return Labels(ids[chosen][by_id], artifact[by_id], source)


def write_answers(path: str | Path, answers: Iterable[Answer]) -> None:
    """Write answers as the CSV that `read_answers` reads, in order of id and rater."""
    with Path(path).open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Answer._fields)
        writer.writerows(sorted(answers))


def id_of(name: str) -> int:
    """The sample id at the end of an image's name: of ``…/3f2a-00000012.png`` 12.

    Raises:
        InputError: there is none.
    """
    found = _ID_IN_NAME.search(Path(name).stem)
    if found is None:
        raise InputError("The name of an image does not say which sample it is", name, "a name like 00000012.png")
    return int(found[1])


def _of_csv(path: Path, allowed: Sequence[str]) -> Iterator[Answer]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"Cannot read the labels of {path}", str(error), _FORMS) from error
    for line, row in enumerate(rows, start=2):
        if not {"id", "label"} <= row.keys():
            raise InputError(f"{path} is not a table of labels", f"columns {', '.join(filter(None, row))}", _FORMS)
        if (row["label"] or "").strip():
            yield Answer(
                _id(row["id"], f"{path}, line {line}"), _label(row["label"], f"{path}, line {line}", allowed), row.get("rater") or ""
            )


def _of_folders(path: Path) -> Iterator[Answer]:
    if missing := [name for name in LABELS if not (path / name).is_dir()]:
        raise InputError(f"{path} is not a folder of labels", f"no folder {' or '.join(missing)} in it", _FORMS)
    for label in LABELS:
        for image in sorted((path / label).iterdir()):
            if image.suffix.lower() in _IMAGES:
                yield Answer(id_of(image.name), label)


def _of_label_studio(path: Path, allowed: Sequence[str]) -> Iterator[Answer]:
    try:
        tasks = json.loads(path.read_text(encoding="utf8"))
        if not isinstance(tasks, list):
            raise TypeError(f"a {type(tasks).__name__} at the top")
        for number, task in enumerate(tasks):
            where = f"{path}, task {number}"
            yield from (_whole if "annotations" in task else _minimal)(task, where, allowed)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not an export of Label Studio", f"{type(error).__name__}: {error}", _FORMS) from error


def _whole(task: Mapping[str, Any], where: str, allowed: Sequence[str]) -> Iterator[Answer]:
    """A task as the full export has it: a list of people's annotations, each a list of results."""
    sample = _sample(task["data"], where)
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        for result in annotation["result"]:
            if result.get("type") == "choices":
                (choice,) = result["value"]["choices"]
                yield Answer(sample, _label(choice, where, allowed), _rater(annotation.get("completed_by")))


def _minimal(task: Mapping[str, Any], where: str, allowed: Sequence[str]) -> Iterator[Answer]:
    """A task as the minimal export has it: its data and its answer in one flat object."""
    choices = [value for value in task.values() if isinstance(value, str) and value.strip().lower() in allowed]
    if len(choices) > 1:
        raise InputError("A task has several answers", where, "one choice a task")
    for choice in choices:
        yield Answer(_sample(task, where), _label(choice, where, allowed), _rater(task.get("annotator")))


def _sample(data: Mapping[str, Any], where: str) -> int:
    if SAMPLE in data:
        return _id(data[SAMPLE], where)
    images = [value for value in data.values() if isinstance(value, str) and Path(value).suffix.lower() in _IMAGES]
    if len(images) != 1:
        raise InputError("A task does not say which sample it shows", where, f"{SAMPLE} in its data, or one image")
    return id_of(images[0])


def _rater(who: Any) -> str:
    """Who answered: Label Studio writes a number, or an object with one."""
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("id")
    return "" if who is None else str(who)


def _id(text: Any, where: str) -> int:
    if not str(text).strip().isdigit():
        raise InputError("This is no sample id", f"{text!r} in {where}", "a whole number, at least 0")
    return int(text)


def _label(text: str, where: str, allowed: Sequence[str]) -> str:
    label = text.strip().lower()
    if label not in allowed:
        raise InputError("There is no such label", f"{text!r} in {where}", " or ".join(allowed))
    return label
