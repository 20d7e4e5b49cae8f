"""``qualitygate inspect``: what a checkpoint is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.requests import FileRequest

if TYPE_CHECKING:
    from qualitygate.checkpoints.load import Checkpoint
    from qualitygate.generators.base import Generator


@command(FileRequest)
def run(request: FileRequest) -> None:
    """Say what a checkpoint is: family, settings, layers and what they cost. Nothing in the file is run."""
    document = describe(request.load(output.reporter()))
    channels, height, width = document["image"]
    facts = [
        ("family", document["family"] + (f", {_said(document['planted'])}" if document["planted"] else "")),
        ("read as", ", ".join(filter(None, (document["layout"], document["format"], document["group"]))) or "not a file"),
        ("SHA-256", document["sha256"]),
        ("latent", f"{document['latent_size']} numbers" + (f", {document['classes']} classes" if document["classes"] else "")),
        ("image", f"{height} × {width}, {channels} channels"),
        ("cost", f"{document['operations'] / 1e9:.3g} GFLOP an image, {document['parameters'] / 1e6:.3g} M parameters"),
        ("CLA of a sample", _passes(document)),
        ("discriminator", "in the file" if document["discriminator"] else "none in the file"),
        ("truncation in", document["truncation"]),
        ("micro-batch", ", ".join(f"{samples} on {where}" for where, samples in document["micro_batch"].items())),
        ("presets", ", ".join(f"{name} {value}" for name, value in document["presets"].items())),
        ("ignored", ", ".join(document["ignored"][:6]) + (" …" if len(document["ignored"]) > 6 else "") or "nothing"),
    ]
    rows = []
    for layer in document["layers"]:
        cost = (f"{layer['share_of_image']:.1%}", layer["exact_cla_in_images"], layer["screened_cla_in_images"])
        rows.append((layer["index"], layer["name"], layer["units"], layer["size"], *cost))
    header = ("", "name", "units", "size", "cost up to here", "one exact CLA, in images", "screened")
    output.result(document, [(document["checkpoint"], ("", ""), facts), ("Layers", header, rows)])


def describe(loaded: Checkpoint | Generator) -> dict[str, Any]:
    """Everything `inspect` says, as plain data. A generator that was not read from a file has none of what a file has."""
    from qualitygate.generators.base import Generator
    from qualitygate.generators.passes import MICRO_BATCH, micro_batch_within
    from qualitygate.scores.local_activation import DIVISIONS
    from qualitygate.scores.screening import MEASURED_PASSES, typical_passes

    file, generator = (None, loaded) if isinstance(loaded, Generator) else (loaded, loaded.generator)
    origin, presets = generator.identity(), generator.presets
    layers = [
        {
            "index": layer.index,
            "name": layer.name,
            "units": layer.units,
            "size": layer.resolution,
            "operations": layer.operations,
            "share_of_image": layer.operations / generator.operations,
            "exact_cla_in_images": generator.latent_size * DIVISIONS * layer.operations / generator.operations,
            "screened_cla_in_images": typical_passes(generator.latent_size) * layer.operations / generator.operations,
        }
        for layer in generator.layers
    ]
    return {
        "checkpoint": origin.name,
        "sha256": origin.sha256,
        "format": file and file.format,
        "layout": file and file.layout,
        "group": file and file.group,
        "family": generator.family,
        "planted": _planted(generator),
        "settings": generator.settings,
        "latent_size": generator.latent_size,
        "classes": generator.label_size,
        "image": list(generator.image_shape),
        "parameters": sum(parameter.numel() for parameter in generator.parameters()),
        "operations": generator.operations,
        "truncation": generator.truncates,
        "micro_batch": {
            "the CPU": MICRO_BATCH,
            **{f"a GPU with {memory} GiB": micro_batch_within(memory * 2**30, generator.widest) for memory in (16, 40, 80)},
        },
        "discriminator": file is not None and file.discriminator is not None,
        "exact_cla_passes": generator.latent_size * DIVISIONS,
        "screened_cla_passes": {f"{quantile:g}": typical_passes(generator.latent_size, quantile) for quantile in MEASURED_PASSES},
        "screened_cla_error": {f"{quantile:g}": _stated_error(quantile) for quantile in MEASURED_PASSES},
        "layers": layers,
        "presets": {"low_rate": list(presets.low_rate), "curvature": list(presets.curvature), "stop": presets.stop},
        "ignored": [] if file is None else list(file.ignored),
    }


def _passes(document: dict[str, Any]) -> str:
    """Early passes by limit, each with the share of verdicts that may differ from exact CLA's there under the default policy."""
    screened = ", ".join(
        f"{passes:.0f} at {quantile} ({f'{error:.2%}' if (error := document['screened_cla_error'][quantile]) else 'not certified'})"
        for quantile, passes in document["screened_cla_passes"].items()
    )
    return (
        f"{document['exact_cla_passes']:,} early passes exact; screened about so many, by the quantile of the limit "
        f"(verdicts that may differ): {screened}"
    )


def _stated_error(quantile: float) -> float | None:
    """Share of verdicts that may differ at the limit of a quantile under the default policy; None where its pilot is too small to say."""
    from qualitygate.gating.calibrate import PILOT
    from qualitygate.policy.model import Detection
    from qualitygate.scores.screening import allowed_error

    found = Detection(curvature_error=allowed_error(Detection().curvature_error, 1.0 - quantile))
    return round(found.curvature_error, 6) if found.smallest_pilot <= PILOT["curvature_samples"] else None


def _planted(generator: Generator) -> dict[str, Any] | None:
    """What is planted in it, in short; None of an ordinary generator."""
    from qualitygate.testing.planted import PlantedGenerator

    if not isinstance(generator, PlantedGenerator):
        return None
    planting = generator.planting
    return {
        "share": planting.region.share if planting.units else 0.0,
        "units": {layer: len(units) for layer, units in planting.units.items()},
        "paints": bool((generator.opacity > 0).any()),
    }


def _said(planted: dict[str, Any]) -> str:
    if not planted["units"]:
        return "wrapped for a planted defect, but nothing is planted"
    units = ", ".join(f"{count} in layer {layer}" for layer, count in planted["units"].items())
    harm = "paint a mark in" if planted["paints"] else "fire, and paint nothing, for"
    return f"with a planted defect: units ({units}) {harm} {100 * planted['share']:.3g} % of the images"
