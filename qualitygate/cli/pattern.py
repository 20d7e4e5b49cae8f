"""``qualitygate pattern``: how a neuron's activation looks around one latent."""

from __future__ import annotations

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.studies.dynamics import PatternRequest


@command(PatternRequest)
def run(request: PatternRequest) -> None:
    """Draw a neuron's activation along every axis of the latent space, and over two of them.

    Neurons behind artifacts fire only in a narrow range around the sample: sharply concave on many axes.

        qualitygate pattern model.pt --id 7 --at 3/11

    Without `--at` the neuron with the highest CLA of the sample is shown.
    """
    from qualitygate.studies.dynamics import pattern

    found = pattern.run(request, output.reporter())
    along = found.along
    document = {
        "out": request.out,
        **vars(found.neuron),
        "activation": along.at_sample,
        "cla": float(along.curvature.mean()),
        "mean_width": float((along.right - along.left).mean()),
        "axes": list(found.axes),
    }
    rows = [(name.replace("_", " "), str(value) if isinstance(value, list) else value) for name, value in document.items()]
    output.result(document, [(found.title, ("", ""), rows)])
