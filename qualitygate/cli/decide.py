"""``qualitygate decide``: other thresholds on the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qualitygate.cli import output
from qualitygate.cli.options import Json

NAME = "decide"


def run(
    gated: Annotated[Path, typer.Argument(help="A gated set (the folder), or its samples.parquet.", show_default=False)],
    policy: Annotated[Path, typer.Option("--policy", help="The other policy, in YAML.", show_default=False)],
    profile: Annotated[
        Path | None, typer.Option("--profile", help="The profile, where it does not lie in the gated set.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the new verdicts to this Parquet file.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Decide again from raw scores, without generating anything, and say what would change.

    A sample that the new policy would correct, but that was never corrected before, counts as rejected until it is gated again.
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.produce.records import redecide

        if out is not None:
            storage.refuse_existing(out)
        change = redecide(gated, policy, profile)
        if out is not None:
            storage.write_table(out, change.rows)
        document: dict[str, Any] = change.document()
        if json:
            output.emit_json(document)
            return
        rows = [(verdict, document["before"][verdict], document["after"][verdict]) for verdict in document["before"]]
        output.table(f"{document['samples']:,} samples decided again", ("verdict", "before", "after"), rows)
        output.table("Limits", ("rule", "score", "limit", "from"), [tuple(limit.values())[:4] for limit in document["limits"]])
        output.emit(
            f"Yield {document['yield_before']:.1%} → {document['yield_after']:.1%}; "
            f"{document['to_gate_again']:,} samples would have to be gated again"
        )
