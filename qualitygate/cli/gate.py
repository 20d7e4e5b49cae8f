"""``qualitygate gate``: make images and keep the good ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from qualitygate import names, timing
from qualitygate.cli import GATE_FAILED, PASSED, output
from qualitygate.cli.requests import command
from qualitygate.errors import public
from qualitygate.produce.request import GateRequest
from qualitygate.records.gate import GateSummary
from qualitygate.records.images import ImageEncoding, ImageFormat

_MUCH = 0.1  # of the time, spent waiting for encoders


@command(GateRequest)
def run(
    request: GateRequest,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit with 0 even if the batch fails its suite.", show_envvar=False)
    ] = False,
) -> int:
    """Accept, correct or reject every sample, write what is kept, and judge the batch.

    Every id gets exactly one record in samples.parquet. Rejected samples are never finished. Exit code 1 means that the batch
    failed its expectation suite. Interrupted, the same command goes on where it was; until all is done nothing lies in the folder.

    Images are PNG, which loses nothing, compressed as `--png-level` says. WebP and JPEG of `--image-quality` lose some, and are smaller
    and faster. Where generation waited for more than a tenth of the time until images were written, the summary says what to do.

    With `--shards` the set may be of any size: as many images as are wanted, made by several workers, in shards with a manifest. The run
    stops with exit code 1 as soon as it drifts from its profile.

        qualitygate gate model.pt --profile profile --shards webdataset --accepted 1000000 --workers 8 --out s3://bucket/set
    """
    from qualitygate.produce.run import gate_set

    try:
        summary = gate_set(request, output.reporter())
    except (KeyboardInterrupt, SystemExit) as stopped:
        for note in getattr(stopped, "__notes__", ()):
            output.say(note)
        raise
    run_id = send(request.out, request.tracking_uri, request.experiment) if request.track else None
    output.result({"out": request.out, "mlflow_run": run_id, **summary.model_dump(mode="json")}, shown_set(summary, request.out))
    return PASSED if exit_zero or summary.verdict == "passed" else GATE_FAILED


def send(place: str | Path, tracking_uri: str | None, experiment: str) -> str | None:
    """Log a gated set to MLflow; says so where that has to wait. Returns the run's id."""
    from qualitygate.produce.report import local
    from qualitygate.tracking.spool import push

    with local(place) as folder:
        sent = push(folder, tracking_uri, experiment)
    if sent.error is not None:
        again = f"`qualitygate sync {public(str(place))}` later"
        output.say(f"warning: MLflow was not reached, the verdicts stand: {sent.error}\n  what to do: {again}")
    return sent.run_id


def shown_set(summary: GateSummary, out: str | Path) -> Iterator[output.Part]:
    """The summary of a gated set for people."""
    verdicts = {"accepted": summary.accepted, "corrected": summary.corrected, "rejected": summary.rejected}
    shares = [(verdict, count, f"{count / summary.samples:.1%}") for verdict, count in verdicts.items()]
    yield f"{summary.samples:,} samples of {summary.provenance.checkpoint}", ("", "samples", "share"), shares
    yield "Limits", ("rule", "score", "limit", "from"), [(rule.rule, rule.score, rule.limit, rule.source) for rule in summary.limits]
    assert summary.suite is not None
    for failure in summary.suite.failures:
        yield f"{failure.severity}: {failure.id} ({failure.type}) observed {failure.observed} {failure.note or ''}".rstrip()
    verdict, rate = "passed" if summary.suite.passed else "FAILED", summary.metrics[names.IMAGES_PER_SECOND]
    written = "" if summary.image_encoding is None else f", images as {summary.image_encoding}"
    yield f"Batch {verdict}: {summary.suite.evaluated} expectations, {rate:.0f} samples a second{written}. {out}"
    waiting = summary.metrics.get(names.time_share(timing.WAIT), 0.0)
    if summary.image_encoding is not None and waiting > _MUCH:
        yield f"{waiting:.0%} of the time generation waited until images were encoded and written."
        yield f"  what to do: {_faster(summary.image_encoding)}"


def _faster(encoding: ImageEncoding) -> str:
    """How to write images in less time than so."""
    ways = {
        "--png-level 1": encoding.format == ImageFormat.PNG and encoding.level not in (0, 1),
        "--image-format webp (half the time) or jpeg (a tenth)": encoding.format == ImageFormat.PNG,
        "--image-format jpeg (a fifth of the time)": encoding.format == ImageFormat.WEBP,
        "more cores for each worker (fewer --workers, or a larger machine)": True,
    }
    return ", or ".join(way for way, helps in ways.items() if helps)
