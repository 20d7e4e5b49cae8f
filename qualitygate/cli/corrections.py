"""``qualitygate corrections``: every correction on the worst samples, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qualitygate.cli import output
from qualitygate.cli.options import Device, Json, PolicyFile, load, load_policy_or_none
from qualitygate.cli.source import Source, reads_generator

if TYPE_CHECKING:
    from qualitygate.gating.study import Outcome

NAME = "corrections"


@reads_generator
def run(
    source: Source,
    profile: Annotated[Path, typer.Option("--profile", help="Profile made by `calibrate`.", show_default=False)],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A method to compare, such as sequential_ablation; repeatable; default: all.", show_default=False
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="How many samples: the worst of the pool.")] = 60,
    pool: Annotated[int, typer.Option(help="How many samples they are the worst of.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the samples; any but the calibration's.")] = 1,
    own_cla: Annotated[
        bool,
        typer.Option(
            "--own-cla", help="Also rank units, and mask, by each sample's own exact CLA: some thousand passes each."
        ),
    ] = False,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Instead of the methods: low-rate beside high-rate ablation at these R, layer by layer.",
            metavar="R,R,…",
            show_default=False,
        ),
    ] = None,
    show: Annotated[int, typer.Option(help="Samples on the sheet.")] = 12,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the sheet and the numbers; must not exist yet.", show_default=False),
    ] = None,
    policy: PolicyFile = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compare what the corrections do: how many samples pass again, how far they move, what it costs.

        qualitygate corrections model.pt --profile profile --out study

    The samples are those with the most low-rate neurons. Each correction is judged as the gate would judge it, on what its edit did
    not set. Diversity is the spread of the corrected images over that of the untouched ones: a correction that makes everything one
    average image passes, and keeps none. A policy with a correction of your own is compared with the others: give it with --policy.
    """  # fmt: skip
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.gating.profile import detection_layers, load_profile
        from qualitygate.gating.study import compare, rate_grid, study_corrections, worst_samples
        from qualitygate.production.correction_study import document, write_study

        if out is not None:
            storage.refuse_existing(out)
        methods = _methods(method)
        learned = load_profile(profile)
        rules = load_policy_or_none(policy) or learned.policy
        if grid is None:
            chosen = study_corrections(rules, methods, own_cla=own_cla)
        else:
            chosen = rate_grid(rules, detection_layers(rules, learned.info.chain), _rates(grid))
        generator = load(source, device)
        learned.check_generator(generator)
        bars = output.reporter()
        with bars.phase("worst samples", pool) as progress:
            worst = worst_samples(generator, learned, rules, samples, pool, seed, progress)
        outcomes, left_out = compare(generator, learned, rules, chosen, worst, show=show, reporter=bars)
        if out is not None:
            write_study(out, generator, worst, outcomes, left_out)
        if json:
            output.emit_json({"out": None if out is None else str(out), **document(worst, outcomes, left_out)})
            return
        _show(outcomes, f"The {samples} worst of {pool:,} samples by {worst.score}")
        for name, why in left_out.items():
            output.emit(f"Left out: {name}: {why}")
        if out is not None:
            output.emit(f"Sheet and numbers written to {out}")


def _show(outcomes: Sequence[Outcome], title: str) -> None:
    rows: list[tuple[object, ...]] = []
    for one in outcomes:
        for at in one.at:
            rows.append(
                (one.name, f"{at.strength:g}", f"{at.passed.mean():.0%}", float(at.moved.mean()), at.diversity, "")
            )
        moved = one.moved if isfinite(one.moved) else None
        rows.append((one.name, "least", f"{one.passed_share:.0%}", moved, "", one.early_passes))
    output.table(title, ("correction", "strength", "pass", "moved", "diversity", "early passes"), rows)


def _methods(given: list[str] | None) -> list[str]:
    from qualitygate.errors import InputError
    from qualitygate.policy.corrections import METHODS

    if unknown := sorted(set(given or ()) - set(METHODS)):
        raise InputError("There is no such correction", ", ".join(unknown), f"one of {', '.join(METHODS)}")
    return given or list(METHODS)


def _rates(text: str) -> list[float]:
    from qualitygate.errors import InputError

    try:
        rates = [float(one) for one in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0.0 < rate <= 1.0 for rate in rates):
        raise InputError(
            "These are no rates", repr(text), "numbers in (0, 1] with commas, for example --grid 0.1,0.3,0.5"
        )
    return rates
