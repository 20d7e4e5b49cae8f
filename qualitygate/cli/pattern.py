"""``qualitygate pattern``: how a neuron's activation looks around one latent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qualitygate.cli import output
from qualitygate.cli.options import Device, Json, load
from qualitygate.cli.source import Source, reads_generator

if TYPE_CHECKING:
    from qualitygate.generators.base import Generator
    from qualitygate.latents import Latents
    from qualitygate.records.dynamics import Neuron

NAME = "pattern"


@reads_generator
def run(
    source: Source,
    sample: Annotated[int, typer.Option("--id", help="Id of the sample.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of the sample.", min=0)] = 1,
    at: Annotated[
        str | None,
        typer.Option(
            help="The neuron; parts from the right may be left out, and are found by CLA.", metavar="LAYER/UNIT/Y/X", show_default=False
        ),
    ] = None,
    plane: Annotated[
        str | None, typer.Option(help="The two axes of the surface; default: the most local ones.", metavar="A,B", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The figure to write.")] = Path("pattern.png"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw a neuron's activation along every axis of the latent space, and over two of them.

    Neurons behind artifacts fire only in a narrow range around the sample: sharply concave on many axes.

        qualitygate pattern model.pt --id 7 --at 3/11

    Without `--at` the neuron with the highest CLA of the sample is shown.
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.generators.base import sample_latents
        from qualitygate.reports.pattern_figures import pattern_figure
        from qualitygate.studies.dynamics.pattern import axis_pattern, image_of, plane_pattern, unit_activation

        generator = load(source, device)
        latents = sample_latents(generator, [sample], seed)
        neuron = _neuron(generator, latents, at)
        with output.reporter().phase(str(neuron), generator.latent_size) as progress:
            along = axis_pattern(generator, latents, neuron, progress=progress).by_local_activation()
        chosen = _axes(plane) or (int(along.axes[0]), int(along.axes[1]))
        surface = plane_pattern(generator, latents, neuron, chosen)
        title = f"{generator.identity().name}: {neuron}; sample {sample} of seed {seed}"
        picture = pattern_figure(image_of(generator, latents), unit_activation(generator, latents, neuron), neuron, along, surface, title)
        storage.write_bytes(out, picture)
        document = {
            "out": str(out),
            "layer": neuron.layer,
            "unit": neuron.unit,
            "y": neuron.y,
            "x": neuron.x,
            "activation": along.at_sample,
            "cla": float(along.curvature.mean()),
            "mean_width": float((along.right - along.left).mean()),
            "axes": list(chosen),
        }
        if json:
            output.emit_json(document)
        else:
            output.table(
                title,
                ("", ""),
                [(name.replace("_", " "), str(value) if isinstance(value, list) else value) for name, value in document.items()],
            )


def _neuron(generator: Generator, latents: Latents, text: str | None) -> Neuron:
    """The neuron that was asked for; what was left open is where its CLA is greatest."""
    from qualitygate.errors import InputError
    from qualitygate.records.dynamics import Neuron
    from qualitygate.studies.dynamics.pattern import greatest_neuron

    parts = [] if text is None else text.split("/")
    layer = generator.layer(parts[0]).index if parts else generator.presets.curvature[0]
    rest = parts[1:]
    if len(rest) not in (0, 1, 3) or not all(part.isdigit() for part in rest):
        raise InputError("This is no neuron", repr(text), "LAYER, LAYER/UNIT or LAYER/UNIT/Y/X, for example --at 3/11/6/6")
    if len(rest) == 3:
        return Neuron(layer, *map(int, rest))
    return greatest_neuron(generator, latents, layer, int(rest[0]) if rest else None)


def _axes(text: str | None) -> tuple[int, int] | None:
    from qualitygate.errors import InputError

    if text is None:
        return None
    first, _, second = text.partition(",")
    if not first.isdigit() or not second.isdigit() or first == second:
        raise InputError("These are no two axes", repr(text), "A,B, for example --plane 3,14")
    return int(first), int(second)
