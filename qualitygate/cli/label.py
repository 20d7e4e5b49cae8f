"""``qualitygate label``: images for people to label, and what they answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qualitygate.cli import output
from qualitygate.cli.options import Device, Json, load
from qualitygate.cli.source import Source, reads_generator

if TYPE_CHECKING:
    from qualitygate.studies.labels.tasks import Tasks

NAME = "label"


@reads_generator
def run(
    source: Source | None = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the tasks, or file for what was answered.", show_default=False)],
    profile: Annotated[Path | None, typer.Option("--profile", help="Profile made by `calibrate`.", show_default=False)] = None,
    count: Annotated[int, typer.Option(help="Images to label.", min=1)] = 300,
    random_share: Annotated[float, typer.Option(help="Share of random ones; the rest are extremes.", min=0.0, max=1.0)] = 0.3,
    score: Annotated[str | None, typer.Option(help="Score of the extremes; default: the first rule's.", show_default=False)] = None,
    read: Annotated[
        Path | None,
        typer.Option("--read", help="Answers: CSV, Label Studio's JSON, or a folder with artifact/ and normal/.", show_default=False),
    ] = None,
    tasks: Annotated[Path | None, typer.Option(help="With --read: the folder of tasks that they answer.", show_default=False)] = None,
    corrected: Annotated[
        Path | None,
        typer.Option(
            help="Instead: a second, blind round over the images that `corrections --keep` wrote to this folder.", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Make a folder of images to label, and read the answers back.

        qualitygate label model.pt --profile profile --out tasks
        qualitygate label --read tasks/labels.csv --tasks tasks --out labels.csv
        qualitygate units model.pt --profile profile --labels labels.csv --out units

    After a correction, a second round in which nobody is told which image is which: how many are fine now, how many are better.

        qualitygate corrections model.pt --profile profile --labels labels.csv --keep sequential_ablation --out study
        qualitygate label --corrected study --out round
        qualitygate label --read round/labels.csv --tasks round --out answers.csv

    Most images are the extremes of a score, so that few labels go far; the others are random. The README in the folder says how to label.
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.errors import InputError

        storage.refuse_existing(out)
        if corrected is not None and (read, tasks, source, profile) == (None,) * 4:
            document = _second_round(corrected, out)
        elif read is not None and tasks is not None and source is None and corrected is None:
            document = _read(read, tasks, out)
        elif read is None and tasks is None and source is not None and profile is not None and corrected is None:
            document = _write(source, profile, out, device, count, random_share, score)
        else:
            raise InputError(
                "It is not clear what to do",
                "a mix of options",
                "CHECKPOINT and --profile for tasks, --corrected for a second round, or --read and --tasks for answers",
                "see `qualitygate label --help`",
            )
        if json:
            output.emit_json({"out": str(out), **document})
        else:
            _show(document, out)


def _write(source: Source, profile: Path, out: Path, device: str, count: int, random_share: float, score: str | None) -> dict[str, Any]:
    from qualitygate.gating.profile import load_profile
    from qualitygate.studies.labels.tasks import choose_tasks, write_tasks

    learned = load_profile(profile)
    chosen = choose_tasks(learned, count, random_share=random_share, score=score)
    write_tasks(load(source, device), learned, chosen, out, output.reporter())
    return {"tasks": len(chosen.ids), "score": chosen.score, "groups": _sizes(chosen)}


def _read(read: Path, tasks: Path, out: Path) -> dict[str, Any]:
    from qualitygate import storage
    from qualitygate.studies.labels.second_round import is_round
    from qualitygate.studies.labels.tasks import read_task_answers, read_tasks, summary
    from qualitygate.units.labels import write_answers

    if is_round(tasks):
        return _read_second_round(read, tasks, out)
    asked = read_tasks(tasks)
    answers, labels = read_task_answers(read, asked)
    with storage.new_file(out) as partial:
        write_answers(partial, answers)
    return summary(asked, answers, labels)


def _second_round(study: Path, out: Path) -> dict[str, Any]:
    from qualitygate.studies.labels.second_round import make_round, write_round

    asked = make_round(study)
    write_round(study, asked, out)
    return {"correction": asked.correction, "tasks": len(asked.tasks)}


def _read_second_round(read: Path, tasks: Path, out: Path) -> dict[str, Any]:
    from qualitygate import storage
    from qualitygate.studies.labels.second_round import read_round, read_round_answers, summary
    from qualitygate.units.labels import write_answers

    asked = read_round(tasks)
    answers = read_round_answers(read, asked)
    with storage.new_file(out) as partial:
        write_answers(partial, answers)
    return summary(asked, answers)


def _sizes(tasks: Tasks) -> dict[str, int]:
    return {group: len(ids) for group, ids in tasks.groups.items()}


def _show_second_round(document: dict[str, Any], out: Path) -> None:
    if "answers" not in document:
        output.emit(f"{document['tasks']} tasks on {document['correction']}, written to {out}; see its README.md")
        return
    shares = ("normal_before", "corrected", "improved")
    rows = [(rater or "(no name)", *(one[share] for share in shares)) for rater, one in document["raters"].items()]
    for name, values in (("mean", document), ("mean, of those that pass", document["of_passed"])):
        rows.append((name, *(values[share] for share in shares)))
    rows.append(("spread", *(document[f"{share}_spread"] for share in shares)))
    output.table(f"After {document['correction']}", ("rater", "normal before", "corrected", "improved"), rows)
    output.emit(f"{document['answers']} answers written to {out}")


def _show(document: dict[str, Any], out: Path) -> None:
    if "correction" in document:
        _show_second_round(document, out)
        return
    if "answers" not in document:
        output.table(f"{document['tasks']} images to label, by {document['score']}", ("group", "images"), list(document["groups"].items()))
        output.emit(f"Written to {out}; its README.md says how to label")
        return
    output.table("Labels", ("", "samples"), [(name, document[name]) for name in ("artifact", "normal", "unanswered")])
    groups = [(group, one["labelled"], one["artifact"]) for group, one in document["groups"].items()]
    output.table("By why they were asked about", ("group", "labelled", "artifact"), groups)
    raters = [(rater or "(no name)", one["artifact"], one["normal"]) for rater, one in document["raters"].items()]
    output.table("By rater", ("rater", "artifact", "normal"), raters)
    if document["contradictions"]:
        output.emit(f"Left out, as many for as against: {', '.join(map(str, document['contradictions']))}")
    output.emit(f"{document['answers']} answers written to {out}")
