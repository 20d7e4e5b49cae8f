"""``qualitygate corrections``: every correction on the same samples, side by side."""

from __future__ import annotations

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.studies.corrections import CorrectionsRequest


@command(CorrectionsRequest)
def run(request: CorrectionsRequest) -> None:
    """Compare what the corrections do: how many samples pass again, how far they move, what becomes of FID and realism.

        qualitygate corrections model.pt --profile profile --real photos/ --extractor inception --out study
        qualitygate corrections model.pt --profile profile --labels labels.csv --units units --harm 60

    The samples are those with the most low-rate neurons, or artifacts by label. Each correction is judged as the gate would judge it, on
    what its edit did not set. Diversity is the spread of the corrected images over that of the untouched ones: a correction that makes
    everything one average image passes, and keeps none. Without real images FID is against normal images of the generator itself. A
    policy with a correction of your own is compared with the others: give it with --policy.
    """
    from qualitygate.studies.corrections import run as study
    from qualitygate.studies.corrections.result import COLUMNS, LEAST

    result = study.run(request, output.reporter())
    columns = [column for column in COLUMNS if any(column in row for row in result.rows)]
    rows = []
    for row in result.rows:
        strength = LEAST if row["strength"] is None and row["method"] else row["strength"]
        rows.append((row["correction"], strength, *(row.get(column) for column in columns)))
    shown: list[output.Part] = [(f"Correcting {result.samples.chosen}", ("correction", "strength", *columns), rows)]
    if (against := result.reference) is not None:
        what = "real images" if against.real else "the generator's own samples, not real images"
        shown.append(
            f"FID, realism and precision of {len(result.samples.latents):,} against {against.images.name} ({what}), "
            f"features: {against.extractor}; only rows of this table can be compared"
        )
    if result.fid_note is not None:
        shown.append(f"FID: {result.fid_note}")
    shown += [f"Left out: {name}: {why}" for name, why in result.left_out.items()]
    if request.out is not None:
        shown.append(f"Tables, figures and sheets written to {request.out}")
    output.result({"out": request.out, **result.document()}, shown)
