"""``qualitygate label``: images for people to label, and what they answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.studies.labels import LabelRequest


@command(LabelRequest)
def run(request: LabelRequest) -> None:
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
    from qualitygate.studies.labels import run as study

    document = study.run(request, output.reporter())
    output.result({"out": request.out, **document}, _shown(document, request.out))


def _shown(document: dict[str, Any], out: Path) -> Iterator[output.Part]:
    if "answers" in document:
        yield from (_round if "correction" in document else _labels)(document)
        yield f"{document['answers']} answers written to {out}"
    elif "correction" in document:
        yield f"{document['tasks']} tasks on {document['correction']}, written to {out}; see its README.md"
    else:
        yield f"{document['tasks']} images to label, by {document['score']}", ("group", "images"), list(document["groups"].items())
        yield f"Written to {out}; its README.md says how to label"


def _round(document: dict[str, Any]) -> Iterator[output.Part]:
    shares = ("normal_before", "corrected", "improved")
    named = [(rater or "(no name)", one) for rater, one in document["raters"].items()]
    rows = [(name, *(values[share] for share in shares)) for name, values in (*named, ("mean", document))]
    rows.append(("mean, of those that pass", *(document["of_passed"][share] for share in shares)))
    rows.append(("spread", *(document[f"{share}_spread"] for share in shares)))
    yield f"After {document['correction']}", ("rater", "normal before", "corrected", "improved"), rows


def _labels(document: dict[str, Any]) -> Iterator[output.Part]:
    yield "Labels", ("", "samples"), [(name, document[name]) for name in ("artifact", "normal", "unanswered")]
    groups = [(group, one["labelled"], one["artifact"]) for group, one in document["groups"].items()]
    yield "By why they were asked about", ("group", "labelled", "artifact"), groups
    raters = [(rater or "(no name)", one["artifact"], one["normal"]) for rater, one in document["raters"].items()]
    yield "By rater", ("rater", "artifact", "normal"), raters
    if document["contradictions"]:
        yield f"Left out, as many for as against: {', '.join(map(str, document['contradictions']))}"
