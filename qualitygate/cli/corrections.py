"""``qualitygate corrections``: every correction on the same samples, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qualitygate.cli import output
from qualitygate.cli.correction_options import (
    NONE,
    chosen_corrections,
    defective,
    extractor_of,
    grid_corrections,
    labelled,
    planted_generator,
    real_of,
    steps_of,
    with_units,
    worst,
)
from qualitygate.cli.options import (
    Device,
    ExtractorWeights,
    Json,
    LabelSeed,
    PolicyFile,
    ProfileFolder,
    SampleSeed,
    load,
    load_policy_or_none,
)
from qualitygate.cli.source import Source, reads_generator

if TYPE_CHECKING:
    from qualitygate.studies.corrections.run import CorrectionStudy

NAME = "corrections"


@reads_generator
def run(
    source: Source,
    profile: ProfileFolder,
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method to compare, such as sequential_ablation; repeatable; default: all.", show_default=False),
    ] = None,
    strengths: Annotated[
        list[str] | None,
        typer.Option(
            help="Strengths of a method in place of its own, from the least; repeatable.", metavar="METHOD=S,S,…", show_default=False
        ),
    ] = None,
    edit: Annotated[
        list[str] | None,
        typer.Option(
            help="Layers to edit in place of the method's own; repeatable: every method with each.", metavar="L,L,…", show_default=False
        ),
    ] = None,
    units: Annotated[
        Path | None, typer.Option(help="Also rank units by every score in this folder, written by `qualitygate units`.", show_default=False)
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Correct the artifacts of these labels (see `label`), in place of the worst.", show_default=False)
    ] = None,
    label_seed: LabelSeed = None,
    planted: Annotated[
        bool, typer.Option("--planted", help="The file is a planted generator: correct its defects, and hold them against the truth.")
    ] = False,
    samples: Annotated[int, typer.Option(help="How many samples: the worst of the pool; of others, at most so many.")] = 60,
    pool: Annotated[int, typer.Option(help="How many samples they are the worst of.")] = 2000,
    seed: SampleSeed = 1,
    real: Annotated[
        str | None,
        typer.Option(
            help="Real images for FID, realism and precision: a folder, .zip, .tar, .parquet, .npz, or `digits`.", show_default=False
        ),
    ] = None,
    extractor: Annotated[
        str, typer.Option(help=f"Features of FID and realism, see `metrics`, or `{NONE}`; with --real or on its own.")
    ] = NONE,
    weights: ExtractorWeights = None,
    harm: Annotated[int, typer.Option(help="Normal samples to correct too: how far they move is harm.", min=0)] = 0,
    own_cla: Annotated[
        bool, typer.Option("--own-cla", help="Also rank units, and mask, by each sample's own exact CLA: some thousand passes each.")
    ] = False,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Instead of the methods: low-rate beside high-rate ablation at these R, layer by layer.",
            metavar="R,R,…",
            show_default=False,
        ),
    ] = None,
    show: Annotated[int, typer.Option(help="Samples on the sheets.", min=1)] = 12,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Name of a correction whose images are all written to OUT, for `qualitygate label --corrected`.", show_default=False
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables, figures and sheets; must not exist yet.", show_default=False)] = None,
    policy: PolicyFile = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compare what the corrections do: how many samples pass again, how far they move, what becomes of FID and realism.

        qualitygate corrections model.pt --profile profile --real photos/ --extractor inception --out study
        qualitygate corrections model.pt --profile profile --labels labels.csv --units units --harm 60

    The samples are those with the most low-rate neurons, or artifacts by label. Each correction is judged as the gate would judge it, on
    what its edit did not set. Diversity is the spread of the corrected images over that of the untouched ones: a correction that makes
    everything one average image passes, and keeps none. Without real images FID is against normal images of the generator itself. A
    policy with a correction of your own is compared with the others: give it with --policy.
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.errors import InputError
        from qualitygate.gating.profile import load_profile
        from qualitygate.studies.corrections.folder import write_kept, write_study
        from qualitygate.studies.corrections.run import Asked, document, study

        if out is not None:
            storage.refuse_existing(out)
        elif keep is not None:
            raise InputError("Images that are kept need a place", "--keep without --out", "both")
        learned = load_profile(profile)
        rules = load_policy_or_none(policy) or learned.policy
        learned, given = with_units(learned, units)
        chosen = (
            chosen_corrections(rules, method, strengths, edit, own_cla, given) if grid is None else grid_corrections(rules, learned, grid)
        )
        if keep is not None and keep not in chosen:
            raise InputError("There is no such correction to keep", keep, f"one of {'; '.join(chosen)}")
        generator, truth = planted_generator(source, device) if planted else (load(source, device), {})
        learned.check_generator(generator)
        if labels is not None:
            picked = labelled(generator, learned, labels, label_seed, samples)
        elif planted:
            picked = defective(generator, learned, samples, pool, seed)
        else:
            picked = worst(generator, learned, rules, samples, pool, seed)
        asked = Asked(chosen, show, () if keep is None else (keep,), harm, truth)
        looks = extractor_of(extractor, weights, source, device) if extractor != NONE or real is not None else None
        made = study(generator, learned, rules, picked, asked, extractor=looks, real=real_of(real, generator), reporter=output.reporter())
        if out is not None:
            write_study(out, generator, made, steps_of(generator, learned, rules, made, show))
            if keep is not None and keep not in made.left_out:
                write_kept(out, generator, made, keep)
        if json:
            output.emit_json({"out": None if out is None else str(out), **document(made)})
        else:
            _show(made, out)


def _show(made: CorrectionStudy, out: Path | None) -> None:
    from qualitygate.studies.corrections.run import COLUMNS, LEAST

    rows = made.rows()
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    table = []
    for row in rows:
        strength = LEAST if row["strength"] is None and row["method"] else row["strength"]
        table.append((row["correction"], strength, *(row.get(column) for column in columns)))
    output.table(f"Corrector {made.samples.chosen}", ("correction", "strength", *columns), table)
    if (against := made.yardstick) is not None:
        what = "real images" if against.real else "the generator's own samples, not real images"
        output.emit(
            f"FID, realism and precision of {len(made.samples.latents):,} against {against.reference.name} ({what}), "
            f"features: {against.extractor.key}; only rows of this table can be compared"
        )
    for name, why in made.left_out.items():
        output.emit(f"Left out: {name}: {why}")
    if out is not None:
        output.emit(f"Tables, figures and sheets written to {out}")
