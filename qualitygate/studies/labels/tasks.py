"""A folder of images for people to label, and what they answered.

Few labels must go far: most images are the extremes of a score, where artifacts and normal images are, and the rest are random, so that
the labels also say what share of all samples is wrong and whether the score means anything. People see the images in random order and
do not know which is which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qualitygate import storage
from qualitygate.errors import InputError
from qualitygate.gating.profile import Profile
from qualitygate.generators.base import Generator, sample_latents
from qualitygate.generators.passes import Reporter, micro_batches, scored_pass
from qualitygate.storage import image_name
from qualitygate.studies.units.run import calibrated_score, scored_ids
from qualitygate.units.labels import ARTIFACT, LABELS, NORMAL, SAMPLE, Answer, Labels, read_answers, settled

TASKS, TEMPLATE, KEY, README, INTERFACE, IMAGES = ("tasks.json", "labels.csv", "key.json", "README.md", "label_studio.xml", "images")
HIGHEST, LOWEST, RANDOM = "highest", "lowest", "random"
RANDOM_SHARE = 0.3
"""Share of the tasks that are random samples."""

_INTERFACE = f"""<View>
  <Image name="image" value="$image" zoom="true"/>
  <Choices name="label" toName="image" choice="single" showInLine="true">
    <Choice value="{ARTIFACT}" hotkey="a"/>
    <Choice value="{NORMAL}" hotkey="n"/>
  </Choices>
</View>
"""


@dataclass(frozen=True)
class Tasks:
    """What people were asked.

    Attributes:
        groups: ids by why they were chosen; the groups share none.
        score: the score whose extremes they are.
        seed: of the samples.
        checkpoint_sha256: of the checkpoint that drew them.
    """

    groups: Mapping[str, list[int]]
    score: str
    seed: int
    checkpoint_sha256: str

    @property
    def ids(self) -> list[int]:
        return sorted(one for ids in self.groups.values() for one in ids)


def choose_tasks(profile: Profile, count: int, *, random_share: float = RANDOM_SHARE, score: str | None = None, seed: int = 0) -> Tasks:
    """Choose samples to label among those that the calibration scored.

    Args:
        profile: of the checkpoint.
        count: images to label.
        random_share: share of them that is random; the rest is half the highest and half the lowest of the score.
        score: column of the calibration; by default that of the first rule.
        seed: of the random choice.

    Raises:
        InputError: a share out of range, more images than the calibration scored, or no such score.
    """
    name, values = calibrated_score(profile, score)
    scored = np.flatnonzero(~np.isnan(values))
    if not 0.0 <= random_share <= 1.0 or not 1 <= count <= len(scored):
        raise InputError(
            "So many tasks cannot be chosen",
            f"{count} with a random share of {random_share:g}",
            f"1 to {len(scored):,} samples, a share in [0, 1]",
        )
    extremes = count - round(random_share * count)
    order = scored[np.argsort(values[scored], kind="stable")]
    lowest = order[: extremes // 2]
    highest = order[len(order) - (extremes - extremes // 2) :]
    rest = np.setdiff1d(scored, np.concatenate((lowest, highest)))
    random = np.random.default_rng(seed).choice(rest, count - extremes, replace=False)
    first = scored_ids(profile).start
    groups = {HIGHEST: highest, LOWEST: lowest, RANDOM: random}
    info = profile.info
    return Tasks(
        {group: sorted((first + rows).tolist()) for group, rows in groups.items()}, name, info.calibration.seed, info.checkpoint_sha256
    )


def write_tasks(generator: Generator, profile: Profile, tasks: Tasks, out: str | Path, reporter: Reporter | None = None) -> None:
    """Write the folder: images, tasks and interface for Label Studio, a table to fill in, and the key, which labellers need not see.

    Raises:
        ProfileError: the profile is of another checkpoint.
        OutputError: the folder holds something already.
        StorageError: it cannot be written.
    """
    profile.check_generator(generator)
    reporter = reporter or Reporter()
    shown = np.random.default_rng(tasks.seed).permutation(tasks.ids).tolist()
    latents = sample_latents(generator, shown, tasks.seed, sampling=profile.info.sampling)
    with storage.new_folder(out) as folder:
        with scored_pass(), reporter.phase("images", len(latents)) as progress, storage.ImageFolder(folder / IMAGES) as images:
            for rows, batch in micro_batches(latents):
                made = generator(batch)[: rows.stop - rows.start].cpu().numpy()
                for sample, image in zip(shown[rows], made, strict=True):
                    images.add(sample, image)
                progress(len(made))
        files = {
            TASKS: json.dumps([_task(sample) for sample in shown], indent=1),
            TEMPLATE: "id,label,rater\n" + "".join(f"{sample},,\n" for sample in shown),
            KEY: json.dumps(vars(tasks), indent=1),
            INTERFACE: _INTERFACE,
            README: _readme(tasks, profile.info.checkpoint),
        }
        for name, text in files.items():
            storage.write_bytes(folder / name, text.encode())


def read_tasks(folder: str | Path) -> Tasks:
    """What people were asked, from a folder that `write_tasks` wrote.

    Raises:
        InputError: it is none.
    """
    try:
        return Tasks(**json.loads((Path(folder) / KEY).read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder} is not a folder of tasks",
            f"{type(error).__name__}: {error}",
            f"a folder written by `qualitygate label`, with its {KEY}",
        ) from error


def read_task_answers(path: str | Path, tasks: Tasks) -> tuple[list[Answer], Labels]:
    """Every answer, and the labels they settle on.

    Raises:
        InputError: as `read_answers`; a sample that nobody was asked about.
    """
    answers = read_answers(path)
    return answers, settled(answers, str(path), tasks.ids)


def summary(tasks: Tasks, answers: list[Answer], labels: Labels) -> dict[str, Any]:
    """What the answers say, as JSON values: counts, and by group and rater how many were called an artifact."""
    artifact = dict(zip(labels.ids.tolist(), labels.artifact.tolist(), strict=True))
    raters = sorted({one.rater for one in answers})
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
            rater: {label: sum(one.label == label for one in answers if one.rater == rater) for label in LABELS} for rater in raters
        },
    }


def _task(sample: int) -> dict[str, Any]:
    return {"data": {"image": f"{IMAGES}/{image_name(sample)}", SAMPLE: sample}}


def _readme(tasks: Tasks, checkpoint: str) -> str:
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
