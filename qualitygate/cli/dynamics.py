"""``qualitygate dynamics``: how the scores move from snapshot to snapshot."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qualitygate.cli import GATE_FAILED, output
from qualitygate.cli.options import Device, Experiment, ExtractorWeights, Json, Tracking, chosen_device

if TYPE_CHECKING:
    from qualitygate.checkpoints.load import Checkpoint
    from qualitygate.records.dynamics import DynamicsRecord
    from qualitygate.studies.dynamics.measure import Settings
    from qualitygate.studies.dynamics.run import AgainstReal, Load, Scored, Snapshot

NAME = "dynamics"
SUMMARY, FIGURES, STORE, MODELS = "dynamics.json", "figures", "scores", "models"


def run(
    snapshots: Annotated[
        list[str],
        typer.Argument(
            help="Folders, patterns, files, https://…, models:/…, or runs:/RUN for the logged models of an MLflow run.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for numbers and figures; scores in it are used again.")] = Path("dynamics"),
    layers: Annotated[str | None, typer.Option(help="Layers of CLA; default: the family's.", metavar="A,B,…", show_default=False)] = None,
    samples: Annotated[int, typer.Option(help="Latents that go through every snapshot.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Of these latents.", min=0)] = 1,
    axes: Annotated[
        int | None, typer.Option(help="Axes of z for CLA: fewer are an estimate. Default: all.", min=1, show_default=False)
    ] = None,
    rate: Annotated[float, typer.Option(help="R of low-rate neurons.")] = 0.1,
    rate_samples: Annotated[int, typer.Option(help="Latents of the estimate of the activation rates.", min=1)] = 2048,
    real: Annotated[
        str | None,
        typer.Option(help="Real images for realism, KID and FID: a folder, .zip, .tar, .parquet, .npz, or `digits`.", show_default=False),
    ] = None,
    extractor: Annotated[str, typer.Option(help="Feature extractor.")] = "random-vgg16-32",
    weights: ExtractorWeights = None,
    images: Annotated[int, typer.Option(help="Images of each snapshot that are held against the real ones.", min=2)] = 1000,
    unit: Annotated[
        str | None,
        typer.Option(help="Unit to follow in the figure; default: the one whose CLA rose most.", metavar="LAYER/UNIT", show_default=False),
    ] = None,
    alarm: Annotated[
        list[str] | None, typer.Option(help="'METRIC xFACTOR in LENGTH', repeatable; exit code 1 where one goes off.", show_default=False)
    ] = None,
    track: Annotated[bool, typer.Option(help="Log to MLflow, each snapshot to a logged model of its own.")] = True,
    tracking_uri: Tracking = None,
    experiment: Experiment = "qualitygate",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score the same latents through every snapshot of a training run.

    Say what rises while it trains: CLA of samples and units, low-rate neurons, units that count against realism.

        qualitygate dynamics digits --alarm 'dynamics/cla_unit_q0.99/layer_3 x2 in 200'

    The training step is read from the file's metadata (kimg or step) or its name. Snapshots that cannot be read are reported, and the
    others go on; what was scored before is not scored again.
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.studies.dynamics.alarms import parse_alarm
        from qualitygate.studies.dynamics.measure import Settings
        from qualitygate.studies.dynamics.run import record, score_snapshots

        alarms = [parse_alarm(text) for text in alarm or ()]
        chosen_layer, chosen_unit = _unit(unit)
        settings = Settings(
            layers=_layers(layers), samples=samples, seed=seed, axes=axes, rate=rate, rate_samples=rate_samples, metric_samples=images
        )
        found = _found(snapshots, out / MODELS, tracking_uri)
        load = _loader(device, tracking_uri)
        quality = None if real is None else _against_real(real, (extractor, weights), chosen_device(device), found, load)
        course = score_snapshots(
            found,
            settings,
            load,
            store=out / STORE,
            metrics=quality,
            metrics_key="" if quality is None else quality.key,
            reporter=output.reporter(),
        )
        for one in course:
            if one.error is not None:
                output.say(f"warning: {one.snapshot.name} is left out: {one.error}")
        written = record(course, settings, alarms)
        storage.write_bytes(out / SUMMARY, (written.model_dump_json(indent=2) + "\n").encode())
        _draw(out / FIGURES, written, course, settings, load, chosen_layer, chosen_unit)
        where = _send(out, written, tracking_uri, experiment) if track else None
        if json:
            output.emit_json({"out": str(out), "mlflow_run": where, **written.model_dump(mode="json")})
        else:
            _show(written, out)
        raise typer.Exit(GATE_FAILED if written.alarms else 0)


def _layers(text: str | None) -> tuple[int, ...] | None:
    from qualitygate.errors import InputError

    if text is None:
        return None
    if not all(part.isdigit() for part in text.split(",")):
        raise InputError("These are no layers", repr(text), "indices with commas, for example --layers 2,3")
    return tuple(int(part) for part in text.split(","))


def _unit(text: str | None) -> tuple[int | None, int | None]:
    from qualitygate.errors import InputError

    if text is None:
        return None, None
    layer, _, unit = text.partition("/")
    if not layer.isdigit() or not unit.isdigit():
        raise InputError("This is no unit", repr(text), "LAYER/UNIT, for example --unit 3/11")
    return int(layer), int(unit)


def _found(sources: list[str], models: Path, tracking_uri: str | None) -> list[Snapshot]:
    """The snapshots behind all sources; those of an MLflow run are its logged models, whose weights go to ``models``."""
    from qualitygate.studies.dynamics.run import Snapshot, find_snapshots, in_order
    from qualitygate.tracking.run_models import fetch_models, run_of

    found = find_snapshots([source for source in sources if run_of(source) is None])
    for source in sources:
        if (run_id := run_of(source)) is not None:
            fetched = fetch_models(run_id, models, tracking_uri)
            found += [Snapshot(one.source, one.step, "step", one.model_id) for one in fetched]
    return in_order(found)


def _against_real(real: str, extractor: tuple[str, str | None], device: str, found: list[Snapshot], load: Load) -> AgainstReal:
    """Set metrics against the real images, at the size of the snapshots' images."""
    from qualitygate.cli.looking import real_images
    from qualitygate.features.registry import make_extractor
    from qualitygate.studies.dynamics.run import AgainstReal

    images = real_images(real, _image_size(found, load))
    with output.reporter().phase("real images", len(images)) as progress:
        return AgainstReal.of(images, make_extractor(extractor[0], weights=extractor[1], device=device), progress)


def _image_size(found: list[Snapshot], load: Load) -> int:
    """Height of the images of the last snapshot that can be read; the others are reported when it is their turn."""
    from qualitygate.errors import InputError, QualityGateError

    for snapshot in reversed(found):
        with suppress(QualityGateError):
            return load(snapshot).generator.image_shape[1]
    raise InputError("No snapshot could be read", ", ".join(one.name for one in found[:5]) or "none", "at least one generator")


def _loader(device: str, tracking_uri: str | None) -> Load:
    from qualitygate.checkpoints.load import load_checkpoint

    where = chosen_device(device)

    def load(snapshot: Snapshot) -> Checkpoint:
        with output.reporter().download() as progress:
            return load_checkpoint(snapshot.source, where, tracking_uri=tracking_uri, progress=progress)

    return load


def _draw(
    folder: Path, written: DynamicsRecord, course: list[Scored], settings: Settings, load: Load, layer: int | None, unit: int | None
) -> None:
    """The figures: how the metrics move, and the neuron that is followed."""
    from qualitygate import storage
    from qualitygate.errors import QualityGateError
    from qualitygate.reports.course_figure import course_figure
    from qualitygate.reports.pattern_figures import dynamics_figure
    from qualitygate.scores.local_activation import BOUND
    from qualitygate.studies.dynamics.pattern import find_subject, pattern_column

    scored = [one for one in course if one.scores is not None]
    subject = find_subject(load(scored[-1].snapshot).generator, [one.scores for one in scored if one.scores], settings, layer, unit)
    columns = []
    for one in scored:
        title = f"{one.snapshot.at:.3g} {one.snapshot.unit}"
        try:
            columns.append(pattern_column(load(one.snapshot).generator, subject, settings, title))
        except QualityGateError as error:
            output.say(f"warning: no column for {one.snapshot.name}: {str(error).splitlines()[0]}")
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_bytes(folder / "course.png", course_figure(written))
    storage.write_bytes(
        folder / "unit.png", dynamics_figure(columns, subject.neuron, subject.axes, BOUND, f"{subject.neuron}; sample {subject.sample}")
    )


def _send(out: Path, written: DynamicsRecord, tracking_uri: str | None, experiment: str) -> str | None:
    """Log to MLflow; says so where that failed. Returns the run's id."""
    from qualitygate.errors import TrackingError
    from qualitygate.tracking.dynamics import log_dynamics

    try:
        return log_dynamics(written, out / FIGURES, tracking_uri, experiment).run_id
    except TrackingError as error:
        output.say(
            f"warning: MLflow was not reached, the numbers stand in {out}: {error}\n"
            "  what to do: run the same command again later; nothing is scored twice"
        )
        return None


def _show(written: DynamicsRecord, out: Path) -> None:
    from qualitygate import names

    columns = (names.CLA_MEAN, names.CLA_UNIT_Q99, names.ACTIVATION_SCALE, names.LOW_RATE_SHARE, names.AGAINST_SHARE)
    for layer in sorted(written.rising):
        header = (written.unit, *(name.removeprefix("dynamics/").replace("_", " ") for name in columns))
        rows: list[tuple[Any, ...]] = [
            (f"{one.at:g}", *(one.metrics.get(names.at_layer(name, layer)) for name in columns)) for one in written.snapshots
        ]
        output.table(f"Layer {layer}", header, rows)
        output.table(f"Units of layer {layer} whose CLA rises most", ("unit", "rise"), written.rising[layer])
    for raised in written.alarms:
        output.emit(f"alarm: {raised}")
    output.emit(f"numbers and figures: {out}")
