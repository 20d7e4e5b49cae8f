"""``qualitygate dynamics``: how the scores move from snapshot to snapshot."""

from __future__ import annotations

from qualitygate import names
from qualitygate.cli import GATE_FAILED, PASSED, output
from qualitygate.cli.requests import command
from qualitygate.studies.dynamics import DynamicsRequest


@command(DynamicsRequest)
def run(request: DynamicsRequest) -> int:
    """Score the same latents through every snapshot of a training run.

    Say what rises while it trains: CLA of samples and units, low-rate neurons, units that count against realism.

        qualitygate dynamics digits --alarm 'dynamics/cla_unit_q0.99/layer_3 x2 in 200'

    The training step is read from the file's metadata (kimg or step) or its name. Snapshots that cannot be read are reported, and the
    others go on; what was scored before is not scored again.
    """
    from qualitygate.studies.dynamics import run as study

    result = study.run(request, output.reporter())
    record = result.record
    for warning in result.warnings:
        output.say(f"warning: {warning}")
    columns = (names.CLA_MEAN, names.CLA_UNIT_Q99, names.ACTIVATION_SCALE, names.LOW_RATE_SHARE, names.AGAINST_SHARE)
    header = (record.unit, *(name.removeprefix("dynamics/").replace("_", " ") for name in columns))
    shown: list[output.Part] = []
    for layer, rising in sorted(record.rising.items()):
        rows = [(f"{one.at:g}", *(one.metrics.get(names.of_layer(name, layer)) for name in columns)) for one in record.snapshots]
        shown += [(f"Layer {layer}", header, rows), (f"Units of layer {layer} whose CLA rises most", ("unit", "rise"), rising)]
    shown += [*(f"alarm: {alarm}" for alarm in record.alarms), f"numbers and figures: {request.out}"]
    output.result({"out": request.out, "mlflow_run": result.mlflow_run, **record.model_dump(mode="json")}, shown)
    return GATE_FAILED if record.alarms else PASSED
