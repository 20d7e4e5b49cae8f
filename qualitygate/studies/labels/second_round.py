"""A blind second round of labels: corrected images beside untouched ones, and nobody is told which is which.

Two questions, as in the paper on automatic correction (CVPR 2021, human evaluation). *Corrected %*: single images, untouched and
corrected ones mixed, each called an artifact or normal; the share of corrected ones that are called normal. *Improved %*: pairs of the
same sample, left and right at random; the share in which the corrected one is called better. Both are means over raters, with the spread
between them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qualitygate import storage
from qualitygate.errors import InputError
from qualitygate.storage import image_name
from qualitygate.studies.corrections.folder import AFTER, BEFORE, KEPT
from qualitygate.units.labels import ARTIFACT, NORMAL, SAMPLE, Answer, read_answers

LEFT, RIGHT, SAME = "left", "right", "same"
ANSWERS = (ARTIFACT, NORMAL, LEFT, RIGHT, SAME)
TASKS, TEMPLATE, KEY, README, INTERFACE, IMAGES = (
    "tasks.json",
    "labels.csv",
    "relabel_key.json",
    "README.md",
    "label_studio.xml",
    "images",
)
_GAP = 8
"""Pixels between the images of a pair."""

_INTERFACE = f"""<View>
  <Image name="image" value="$image" zoom="true"/>
  <Header value="$question"/>
  <Choices name="label" toName="image" choice="single" showInLine="true">
{"".join(f'    <Choice value="{one}"/>{chr(10)}' for one in ANSWERS)}  </Choices>
</View>
"""
_QUESTIONS = {
    "single": f"Is something wrong with it ({ARTIFACT}), or is it fine ({NORMAL})?",
    "pair": f"Which one is better: {LEFT}, {RIGHT}, or {SAME}?",
}


@dataclass(frozen=True)
class Task:
    """One image that people see.

    Attributes:
        sample: the sample it is of.
        shows: ``before``, ``after``, or of a pair what stands left.
        pair: whether it is a pair.
    """

    sample: int
    shows: str
    pair: bool

    @property
    def kind(self) -> str:
        return "pair" if self.pair else "single"


@dataclass(frozen=True)
class Round:
    """A round of labels.

    Attributes:
        correction: name of the correction.
        passed: ids of the samples that the gate would let pass after it.
        tasks: by number, in the order in which they are shown.
    """

    correction: str
    passed: frozenset[int]
    tasks: tuple[Task, ...]


def make_round(study: str | Path, seed: int = 0) -> Round:
    """Two single images and a pair of every sample whose images a study kept, in random order.

    Raises:
        InputError: the study kept none.
    """
    try:
        kept = json.loads((Path(study) / KEPT).read_text(encoding="utf8"))
        ids, passed, name = [int(one) for one in kept["ids"]], frozenset(kept["passed"]), str(kept["correction"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{study} holds no images before and after a correction",
            f"{type(error).__name__}: {error}",
            "a folder that `qualitygate corrections --keep NAME --out FOLDER` wrote",
        ) from error
    draw = np.random.default_rng(seed)
    left = np.where(draw.random(len(ids)) < 0.5, BEFORE, AFTER).tolist()
    tasks = [Task(sample, shows, False) for sample in ids for shows in (BEFORE, AFTER)]
    tasks += [Task(sample, shows, True) for sample, shows in zip(ids, left, strict=True)]
    return Round(name, passed, tuple(tasks[place] for place in draw.permutation(len(tasks))))


def write_round(study: str | Path, asked: Round, out: str | Path) -> None:
    """Write the folder: images under numbers that say nothing, tasks for Label Studio, a table to fill in, and the key.

    Raises:
        InputError: an image of the study is missing.
        OutputError: the folder holds something already.
        StorageError: it cannot be written.
    """
    with storage.new_folder(out) as folder:
        (folder / IMAGES).mkdir()
        for number, task in enumerate(asked.tasks):
            storage.write_bytes(folder / IMAGES / image_name(number), storage.png(_picture(Path(study), task)))
        key = {"correction": asked.correction, "passed": sorted(asked.passed), "tasks": [vars(task) for task in asked.tasks]}
        files = {
            TASKS: json.dumps([_task(number, task) for number, task in enumerate(asked.tasks)], indent=1),
            TEMPLATE: "id,kind,label,rater\n" + "".join(f"{number},{task.kind},,\n" for number, task in enumerate(asked.tasks)),
            KEY: json.dumps(key, indent=1),
            INTERFACE: _INTERFACE,
            README: _readme(len(asked.tasks)),
        }
        for name, text in files.items():
            storage.write_bytes(folder / name, text.encode())


def is_round(folder: str | Path) -> bool:
    """Whether a folder of tasks is a second round."""
    return (Path(folder) / KEY).is_file()


def read_round(folder: str | Path) -> Round:
    """What people were asked, from a folder that `write_round` wrote.

    Raises:
        InputError: it is none.
    """
    try:
        key = json.loads((Path(folder) / KEY).read_text(encoding="utf8"))
        return Round(key["correction"], frozenset(key["passed"]), tuple(Task(**task) for task in key["tasks"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{folder} is not a second round of labels",
            f"{type(error).__name__}: {error}",
            f"a folder written by `qualitygate label --corrected`, with its {KEY}",
        ) from error


def read_round_answers(path: str | Path, asked: Round) -> list[Answer]:
    """Every answer.

    Raises:
        InputError: as `read_answers`; a task that does not exist, or an answer to the other question.
    """
    answers = read_answers(path, ANSWERS)
    for one in answers:
        if not 0 <= one.id < len(asked.tasks):
            raise InputError("An answer is to a task that does not exist", str(one.id), f"tasks 0 … {len(asked.tasks) - 1}")
        if (one.label in (ARTIFACT, NORMAL)) == asked.tasks[one.id].pair:
            kind = asked.tasks[one.id].kind
            raise InputError(f"Task {one.id} was answered with another question's answer", one.label, _QUESTIONS[kind])
    return answers


def summary(asked: Round, answers: Sequence[Answer]) -> dict[str, Any]:
    """Corrected % and improved % as shares, as JSON values: by rater, and their mean and standard deviation between raters.

    ``normal_before`` is the share of *untouched* images called normal: what corrected % has to be read against. ``of_passed`` holds the
    same numbers over the samples that the gate would let pass alone.
    """
    return {
        "correction": asked.correction,
        "tasks": len(asked.tasks),
        "answers": len(answers),
        **_shares(asked, answers),
        "of_passed": _shares(asked, [one for one in answers if asked.tasks[one.id].sample in asked.passed]),
    }


def _shares(asked: Round, answers: Sequence[Answer]) -> dict[str, Any]:
    raters = sorted({one.rater for one in answers})
    by_rater = {rater: _of_rater(asked, [one for one in answers if one.rater == rater]) for rater in raters}
    found: dict[str, Any] = {"raters": by_rater}
    for name in ("corrected", "normal_before", "improved"):
        known = [share for one in by_rater.values() if (share := one[name]) is not None]
        found[name] = float(np.mean(known)) if known else None
        found[f"{name}_spread"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return found


def _of_rater(asked: Round, answers: Sequence[Answer]) -> dict[str, float | None]:
    tasks = [(asked.tasks[one.id], one.label) for one in answers]
    better = {LEFT: 0, RIGHT: 1}
    improved = [better.get(label) == (0 if task.shows == AFTER else 1) for task, label in tasks if task.pair]
    fine: Mapping[str, list[bool]] = {
        shows: [label == NORMAL for task, label in tasks if not task.pair and task.shows == shows] for shows in (BEFORE, AFTER)
    }
    return {"corrected": _share(fine[AFTER]), "normal_before": _share(fine[BEFORE]), "improved": _share(improved)}


def _share(said: Sequence[bool]) -> float | None:
    return float(np.mean(said)) if said else None


def _picture(study: Path, task: Task) -> np.ndarray:
    shown = [_image(study / task.shows / image_name(task.sample))]
    if not task.pair:
        return shown[0]
    other = _image(study / (BEFORE if task.shows == AFTER else AFTER) / image_name(task.sample))
    gap = np.full((other.shape[0], _GAP, other.shape[2]), 255, dtype=np.uint8)
    return np.concatenate([shown[0], gap, other], axis=1)


def _image(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except OSError as error:
        raise InputError("An image of the study cannot be read", str(error), "the folder as `corrections --keep` wrote it") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _task(number: int, task: Task) -> dict[str, Any]:
    return {"data": {"image": f"{IMAGES}/{image_name(number)}", SAMPLE: number, "question": _QUESTIONS[task.kind]}}


def _readme(count: int) -> str:
    return f"""# Images to label, second round

{count} images in random order. Some are single images: {_QUESTIONS["single"]}
Some are pairs: {_QUESTIONS["pair"]}

Judge what the image shows. Leave out what you cannot decide. Use one of:

- `{TEMPLATE}`: write your answer in the column `label` of each image in `{IMAGES}/`, and your name in `rater`;
- Label Studio: paste `{INTERFACE}` as the labelling interface and import `{TASKS}`; export as JSON.

Several people: put their rows into one table, each with a name. Then:
`qualitygate label --read ANSWERS --tasks THIS_FOLDER --out answers.csv`.
`{KEY}` says which is which; better not look before you are done.
"""
