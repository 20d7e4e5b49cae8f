"""Images for people to label, and what they answered.

Few labels must go far: most images are the extremes of a score, where artifacts and normal images are, and the rest are random, so that the
labels also say what share of all samples is wrong and whether the score means anything. What a correction did is seen in a second round, as
in the paper on automatic correction (CVPR 2021, human evaluation): *corrected %* is the share of corrected images, mixed with untouched
ones, that are called normal; *improved %* that of pairs in which the corrected one is called better. Nobody is told which is which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from qualitygate import storage
from qualitygate.errors import InputError
from qualitygate.gating.profile import Profile, load_profile
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Reporter, on_host, pixels
from qualitygate.produce.shards import encoding
from qualitygate.studies.corrections.result import AFTER, BEFORE, KEPT, KeptImages
from qualitygate.studies.labels import LabelRequest
from qualitygate.studies.units.run import calibrated_score, scored_ids
from qualitygate.units.labels import ARTIFACT, LABELS, NORMAL, SAMPLE, Answer, Labels, majority, read_answers, write_answers

TASKS, TEMPLATE, README, INTERFACE, IMAGES = "tasks.json", "labels.csv", "README.md", "label_studio.xml", "images"
KEY, ROUND_KEY = "key.json", "relabel_key.json"
HIGHEST, LOWEST, RANDOM = "highest", "lowest", "random"
LEFT, RIGHT, SAME = "left", "right", "same"
SINGLE, PAIR = "single", "pair"
_QUESTIONS = {
    SINGLE: f"Is something wrong with it ({ARTIFACT}), or is it fine ({NORMAL})?",
    PAIR: f"Which one is better: {LEFT}, {RIGHT}, or {SAME}?",
}
T = TypeVar("T")
_GAP = 8  # pixels between the images of a pair


@dataclass(frozen=True)
class LabelTasks:
    """What people were asked: ids by why they were chosen, with no id in two groups; the score whose extremes they are; and the seed and
    checkpoint that drew them."""

    groups: dict[str, list[int]]
    score: str
    seed: int
    checkpoint_sha256: str

    @property
    def ids(self) -> list[int]:
        return sorted(one for ids in self.groups.values() for one in ids)


@dataclass(frozen=True)
class RoundTask:
    """One image of the second round, of a sample: it shows ``before``, ``after``, or of a pair that one left and the other right."""

    sample: int
    shows: str
    pair: bool

    @property
    def kind(self) -> str:
        return PAIR if self.pair else SINGLE


@dataclass(frozen=True)
class SecondRound:
    """What people were asked about a correction: tasks by number, in the order in which they are shown; and the ids of the samples that the
    gate would let pass after it."""

    correction: str
    passed: tuple[int, ...]
    tasks: tuple[RoundTask, ...]


def run(request: LabelRequest, reporter: Reporter | None = None) -> dict[str, Any]:
    """Write a folder of tasks, or read the answers to one; what came of it, as JSON values. Raises `InputError` for a request for several
    things or none, and as the functions below; `OutputError` if there is something at ``out`` already."""
    storage.refuse_existing(request.out)
    given = {name for name in ("checkpoint", "profile", "read", "tasks", "corrected") if getattr(request, name) is not None}
    if request.corrected is not None and given == {"corrected"}:
        second = make_round(request.corrected)
        write_round(request.corrected, second, request.out)
        return {"correction": second.correction, "tasks": len(second.tasks)}
    if request.read is not None and request.tasks is not None and given <= {"read", "tasks", "profile"}:
        if (request.tasks / ROUND_KEY).is_file():
            second = read_round(request.tasks)
            answers = read_round_answers(request.read, second)
            found = round_summary(second, answers)
        else:
            what = f"{request.tasks} is not a folder of tasks"
            tasks = _read_json(LabelTasks, request.tasks / KEY, what, "a folder written by `qualitygate label`")
            answers = read_answers(request.read)
            found = summary(tasks, answers, majority(answers, str(request.read), tasks.ids))
        with storage.new_file(request.out) as partial:
            write_answers(partial, answers)
        return found
    if request.profile is not None and given == {"checkpoint", "profile"}:
        profile = load_profile(request.profile)
        tasks = choose_tasks(profile, request.count, random_share=request.random_share, score=request.score)
        write_tasks(request.load_both(reporter)[0], profile, tasks, request.out, reporter)
        return {"tasks": len(tasks.ids), "score": tasks.score, "groups": {group: len(ids) for group, ids in tasks.groups.items()}}
    needed = "CHECKPOINT and --profile for tasks, --corrected for a second round, or --read and --tasks for answers"
    raise InputError("It is not clear what to do", "a mix of options", needed, "see `qualitygate label --help`")


def choose_tasks(profile: Profile, count: int, *, random_share: float, score: str | None = None) -> LabelTasks:
    """Choose ``count`` samples to label among those that the calibration scored: a share at random, of the rest half the highest and half
    the lowest of a score, by default that of the first rule. Raises `InputError` for a share out of range, more images than the calibration
    scored, or no such score."""
    name, values = calibrated_score(profile, score)
    scored = np.flatnonzero(~np.isnan(values))
    if not 0.0 <= random_share <= 1.0 or not 1 <= count <= len(scored):
        found, needed = f"{count} with a random share of {random_share:g}", f"1 to {len(scored):,} samples, a share in [0, 1]"
        raise InputError("So many tasks cannot be chosen", found, needed)
    extremes = count - round(random_share * count)
    order = scored[np.argsort(values[scored], kind="stable")]
    lowest, highest = order[: extremes // 2], order[len(order) - (extremes - extremes // 2) :]
    rest = np.setdiff1d(scored, np.concatenate((lowest, highest)))
    random = np.random.default_rng(0).choice(rest, count - extremes, replace=False)
    first, info = scored_ids(profile).start, profile.info
    groups = {group: sorted((first + rows).tolist()) for group, rows in ((HIGHEST, highest), (LOWEST, lowest), (RANDOM, random))}
    return LabelTasks(groups, name, info.calibration.seed, info.checkpoint_sha256)


def write_tasks(generator: Generator, profile: Profile, tasks: LabelTasks, out: str | Path, reporter: Reporter | None = None) -> None:
    """Write the folder: images, tasks and interface for Label Studio, a table to fill in, and the key, which labellers need not see.
    Raises `ProfileError` if the profile is of another checkpoint."""
    profile.check_generator(generator)
    shown = np.random.default_rng(tasks.seed).permutation(tasks.ids).tolist()
    latents = sample_latents(generator, shown, tasks.seed, sampling=profile.info.sampling)
    with storage.new_folder(out) as folder:
        with (reporter or Reporter()).phase("images", len(latents)) as progress, encoding(None, folder / IMAGES) as encoder:
            for rows, made in generator.image_batches(latents, progress=progress):
                for sample, image in zip(shown[rows], on_host(pixels(made)).numpy(), strict=True):
                    encoder.put(sample, image, {})
        _write_folder(
            folder,
            {KEY: tasks, TASKS: [_task(sample) for sample in shown]},
            ["id,label,rater", *(f"{sample},," for sample in shown)],
            _interface(LABELS),
            _readme(tasks, profile.info.checkpoint),
        )


def summary(tasks: LabelTasks, answers: list[Answer], labels: Labels) -> dict[str, Any]:
    """What the answers say, as JSON values: counts, and by group and rater how many were called an artifact."""
    artifact = dict(zip(labels.ids.tolist(), labels.artifact.tolist(), strict=True))
    return {
        "tasks": len(tasks.ids),
        "answers": len(answers),
        "labelled": len(labels),
        **labels.counts,
        "contradictions": list(labels.contradictions),
        "unanswered": len(tasks.ids) - len({one.id for one in answers}),
        "groups": {
            group: {"labelled": sum(one in artifact for one in ids), ARTIFACT: sum(artifact.get(one, False) for one in ids)}
            for group, ids in tasks.groups.items()
        },
        "raters": {
            rater: {label: [one.label for one in of_rater].count(label) for label in LABELS}
            for rater, of_rater in _by_rater(answers).items()
        },
    }


def make_round(study: str | Path, seed: int = 0) -> SecondRound:
    """Two single images and a pair of every sample whose images a study kept, in random order. Raises `InputError` if it kept none."""
    what = f"{study} holds no images before and after a correction"
    needed = "a folder that `qualitygate corrections --keep NAME --out FOLDER` wrote"
    kept = _read_json(KeptImages, Path(study) / KEPT, what, needed)
    draw = np.random.default_rng(seed)
    left = np.where(draw.random(len(kept.ids)) < 0.5, BEFORE, AFTER).tolist()
    tasks = [RoundTask(sample, shows, False) for sample in kept.ids for shows in (BEFORE, AFTER)]
    tasks += [RoundTask(sample, shows, True) for sample, shows in zip(kept.ids, left, strict=True)]
    return SecondRound(kept.correction, kept.passed, tuple(tasks[place] for place in draw.permutation(len(tasks))))


def write_round(study: str | Path, second: SecondRound, out: str | Path) -> None:
    """Write the folder: images under numbers that say nothing, tasks for Label Studio, a table to fill in, and the key. Raises `InputError`
    if an image of the study is missing."""
    with storage.new_folder(out) as folder:
        (folder / IMAGES).mkdir()
        for number, task in enumerate(second.tasks):
            storage.write_bytes(folder / IMAGES / storage.image_name(number), storage.encode(_picture(Path(study), task)))
        _write_folder(
            folder,
            {ROUND_KEY: second, TASKS: [_task(number, question=_QUESTIONS[task.kind]) for number, task in enumerate(second.tasks)]},
            ["id,kind,label,rater", *(f"{number},{task.kind},," for number, task in enumerate(second.tasks))],
            _interface((*LABELS, LEFT, RIGHT, SAME), '  <Header value="$question"/>\n'),
            _ROUND_README.format(count=len(second.tasks)),
        )


def read_round(folder: str | Path) -> SecondRound:
    """What people were asked, from a folder that `write_round` wrote. Raises `InputError` if it is none."""
    needed = "a folder written by `qualitygate label --corrected`"
    return _read_json(SecondRound, Path(folder) / ROUND_KEY, f"{folder} is not a second round of labels", needed)


def read_round_answers(path: str | Path, second: SecondRound) -> list[Answer]:
    """Every answer. Raises as `read_answers`, and for a task that does not exist or an answer to the other question."""
    answers = read_answers(path, (*LABELS, LEFT, RIGHT, SAME))
    for one in answers:
        if not 0 <= one.id < len(second.tasks):
            raise InputError("An answer is to a task that does not exist", str(one.id), f"tasks 0 … {len(second.tasks) - 1}")
        if (one.label in LABELS) == second.tasks[one.id].pair:
            raise InputError(f"Task {one.id} was answered with another question's answer", one.label, _QUESTIONS[second.tasks[one.id].kind])
    return answers


def round_summary(second: SecondRound, answers: Sequence[Answer]) -> dict[str, Any]:
    """Corrected % and improved % as shares, as JSON values: by rater, and their mean and standard deviation between raters.
    ``normal_before`` is the share of *untouched* images called normal: what corrected % has to be read against. ``of_passed`` holds the
    same numbers over the samples that the gate would let pass alone."""
    return {
        "correction": second.correction,
        "tasks": len(second.tasks),
        "answers": len(answers),
        **_shares(second, answers),
        "of_passed": _shares(second, [one for one in answers if second.tasks[one.id].sample in second.passed]),
    }


def _shares(second: SecondRound, answers: Sequence[Answer]) -> dict[str, Any]:
    shares = {"corrected": AFTER, "normal_before": BEFORE, "improved": PAIR}
    raters: dict[str, dict[str, float | None]] = {}
    for rater, of_rater in _by_rater(answers).items():
        said: dict[str, list[bool]] = {of: [] for of in shares.values()}
        for answer in of_rater:
            task = second.tasks[answer.id]
            right = (LEFT if task.shows == AFTER else RIGHT) if task.pair else NORMAL
            said[PAIR if task.pair else task.shows].append(answer.label == right)
        raters[rater] = {name: float(np.mean(said[of])) if said[of] else None for name, of in shares.items()}
    found: dict[str, Any] = {"raters": raters}
    for name in shares:
        known = [share for one in raters.values() if (share := one[name]) is not None]
        found[name] = float(np.mean(known)) if known else None
        found[f"{name}_spread"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return found


def _by_rater(answers: Iterable[Answer]) -> dict[str, list[Answer]]:
    rater = attrgetter("rater")
    return {name: list(of_rater) for name, of_rater in groupby(sorted(answers, key=rater), rater)}


def _picture(study: Path, task: RoundTask) -> np.ndarray:
    sides = (task.shows, BEFORE if task.shows == AFTER else AFTER) if task.pair else (task.shows,)
    try:
        images = [np.atleast_3d(np.asarray(Image.open(study / side / storage.image_name(task.sample)))) for side in sides]
    except OSError as error:
        raise InputError("An image of the study cannot be read", str(error), "the folder as `corrections --keep` wrote it") from error
    gap = np.full((images[0].shape[0], _GAP, images[0].shape[2]), 255, dtype=np.uint8)
    return np.concatenate((images[0], gap, images[1]), axis=1) if task.pair else images[0]


def _read_json(kind: type[T], path: Path, what: str, needed: str) -> T:
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(what, f"{type(error).__name__}: {error}", f"{needed}, with its {path.name}") from error


def _write_folder(folder: Path, documents: Mapping[str, Any], table: Iterable[str], interface: str, readme: str) -> None:
    for name, document in documents.items():
        storage.write_bytes(folder / name, TypeAdapter(type(document)).dump_json(document, indent=1))
    for name, text in ((TEMPLATE, "\n".join((*table, ""))), (INTERFACE, interface), (README, readme)):
        storage.write_bytes(folder / name, text.encode())


def _task(number: int, **more: str) -> dict[str, Any]:
    return {"data": {"image": f"{IMAGES}/{storage.image_name(number)}", SAMPLE: number, **more}}


def _interface(answers: Iterable[str], header: str = "") -> str:
    choices = "".join(f'    <Choice value="{one}" hotkey="{one[0]}"/>\n' for one in answers)
    return f"""<View>
  <Image name="image" value="$image" zoom="true"/>
{header}  <Choices name="label" toName="image" choice="single" showInLine="true">
{choices}  </Choices>
</View>
"""


def _readme(tasks: LabelTasks, checkpoint: str) -> str:
    sizes = {group: len(ids) for group, ids in tasks.groups.items()}
    return f"""# Images to label

{len(tasks.ids)} images of {checkpoint}: is something wrong with it (`{ARTIFACT}`), or is it fine (`{NORMAL}`)?

Judge what the image shows, not whether you like it: a broken face, a melted object, a pattern that is not of this world is an
artifact. Look at each image by itself; leave out what you cannot decide. The order is random.

Use one of:

- `{TEMPLATE}`: write `{ARTIFACT}` or `{NORMAL}` in the column `label` of each image in `{IMAGES}/`, and your name in `rater`;
- two folders: put copies of the images into folders `{ARTIFACT}/` and `{NORMAL}/`;
- Label Studio: paste `{INTERFACE}` as the labelling interface and import `{TASKS}`; images are found where it serves this folder
  (Local storage), with the paths in `{TASKS}` beginning there. Export as JSON.

Then: `qualitygate label --read ANSWERS --tasks THIS_FOLDER --out labels.csv`.

How they were chosen ({KEY} says which is which; better not look before you are done): the {sizes[HIGHEST]} samples with the highest
and the {sizes[LOWEST]} with the lowest `{tasks.score}` of the calibration's, and {sizes[RANDOM]} random ones.
"""


_ROUND_README = f"""# Images to label, second round

{{count}} images in random order. Some are single images: {_QUESTIONS[SINGLE]}
Some are pairs: {_QUESTIONS[PAIR]}

Judge what the image shows. Leave out what you cannot decide. Use one of:

- `{TEMPLATE}`: write your answer in the column `label` of each image in `{IMAGES}/`, and your name in `rater`;
- Label Studio: paste `{INTERFACE}` as the labelling interface and import `{TASKS}`; export as JSON.

Several people: put their rows into one table, each with a name. Then:
`qualitygate label --read ANSWERS --tasks THIS_FOLDER --out answers.csv`.
`{ROUND_KEY}` says which is which; better not look before you are done.
"""
