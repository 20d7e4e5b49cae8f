"""``qualitygate calibrate``: learn a checkpoint once."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.errors import InputError
from qualitygate.policy.model import problems
from qualitygate.requests import GeneratorRequest, WithPolicy


class CalibrateRequest(GeneratorRequest, WithPolicy):
    """Which checkpoint is learned, how latents are drawn, and where the profile goes."""

    out: Path = Field(description="Folder for the profile; must not exist yet.")
    psi: float = Field(1.0, description="Truncation of the latents, in (0, 1]; 1 is none.")
    cutoff: int | None = Field(None, description="Style inputs that are truncated; default: all.")
    label: int | None = Field(None, description="One class only; default: all, uniformly.")


@command(CalibrateRequest)
def run(request: CalibrateRequest) -> None:
    """Learn a checkpoint: how often each neuron fires, and how the scores are distributed.

    The profile that comes out holds all of it, so that gating needs no other calibration, whatever the thresholds.

    Stopped on its way, the same command goes on where it was.
    """
    from qualitygate import storage
    from qualitygate.gating.calibrate import calibrate
    from qualitygate.latents import Sampling

    storage.refuse_existing(request.out)
    rules = request.load_policy()
    try:
        sampling = Sampling(psi=request.psi, cutoff=request.cutoff, labels="uniform" if request.label is None else request.label)
    except ValidationError as error:
        raise InputError("Latents cannot be drawn so", problems(error, "sampling"), "--psi in (0, 1], --cutoff at least 0") from error
    reporter = output.reporter()
    generator, _ = request.load_both(reporter)
    profile = calibrate(generator, rules, sampling=sampling, reporter=reporter)
    profile.save(request.out)
    info = profile.info
    shares = [(layer, *(f"{share:.3f}" for share in of_layer.values())) for layer, of_layer in info.low_rate_shares.items()]
    header = ("", *(f"R = {rate:g}" for rate in info.rates))
    limits = profile.limits(profile.policy)
    rows = [(rule.rule, rule.score, rule.limit, rule.source) for rule in (*limits.rules, *limits.recheck_limits.values())]
    tables = (("Neurons with an activation rate of at most R", header, shares), ("Limits", ("rule", "score", "limit", "from"), rows))
    last = f"Profile {info.profile_id[:12]} of {info.checkpoint} written to {request.out}"
    output.result({"profile": request.out, **info.model_dump(mode="json")}, (*tables, last))
