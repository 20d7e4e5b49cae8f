"""``qualitygate calibrate``: learn a checkpoint once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qualitygate.cli import output
from qualitygate.cli.options import Device, Json, PolicyFile, load, load_policy_or_none
from qualitygate.cli.source import Source, reads_generator

NAME = "calibrate"


@reads_generator
def run(
    source: Source,
    out: Annotated[Path, typer.Option(help="Folder for the profile; must not exist yet.", show_default=False)],
    policy: PolicyFile = None,
    psi: Annotated[float, typer.Option(help="Truncation of the latents, in (0, 1]; 1 is none.")] = 1.0,
    cutoff: Annotated[int | None, typer.Option(help="Style inputs that are truncated; default: all.", show_default=False)] = None,
    label: Annotated[int | None, typer.Option(help="One class only; default: all, uniformly.", show_default=False)] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Learn a checkpoint: how often each neuron fires, and how the scores are distributed.

    The profile that comes out holds all of it, so that gating needs no other calibration, whatever the thresholds.

    Stopped on its way, the same command goes on where it was.
    """
    with output.only_result_on_stdout():
        from pydantic import ValidationError

        from qualitygate import storage
        from qualitygate.errors import InputError
        from qualitygate.gating.calibrate import calibrate
        from qualitygate.latents import Sampling
        from qualitygate.policy.model import problems

        storage.refuse_existing(out)
        rules = load_policy_or_none(policy)
        try:
            sampling = Sampling(psi=psi, cutoff=cutoff, labels="uniform" if label is None else label)
        except ValidationError as error:
            raise InputError("Latents cannot be drawn so", problems(error, "sampling"), "--psi in (0, 1], --cutoff at least 0") from error
        profile = calibrate(load(source, device), rules, sampling=sampling, reporter=output.reporter())
        profile.save(out)
        info = profile.info
        if json:
            output.emit_json({"profile": str(out), **info.model_dump(mode="json")})
            return
        shares = [(layer, *(f"{share:.3f}" for share in of_layer.values())) for layer, of_layer in info.low_rate_shares.items()]
        output.table("Neurons with an activation rate of at most R", ("", *(f"R = {rate:g}" for rate in info.rates)), shares)
        limits = profile.limits(profile.policy)
        rows = [(rule.rule, rule.score, rule.limit, rule.source) for rule in (*limits.rules, *limits.judged.values())]
        output.table("Limits", ("rule", "score", "limit", "from"), rows)
        output.emit(f"Profile {info.profile_id[:12]} of {info.checkpoint} written to {out}")
