"""``qualitygate decide``: other thresholds on the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.requests import Flag, Request


class DecideRequest(Request):
    """Which records are decided again, and by what."""

    gated: Annotated[Path, Flag(argument=True)] = Field(description="A gated set (the folder), or its samples.parquet.")
    policy: Path = Field(description="The other policy, in YAML.")
    profile: Path | None = Field(None, description="The profile, where it does not lie in the gated set.")
    out: Path | None = Field(None, description="Write the new verdicts to this Parquet file.")


@command(DecideRequest)
def run(request: DecideRequest) -> None:
    """Decide again from raw scores, without generating anything, and say what would change.

    A sample that the new policy would correct, but that was never corrected before, counts as rejected until it is gated again.
    """
    from qualitygate import storage
    from qualitygate.produce.records import redecide

    if request.out is not None:
        storage.refuse_existing(request.out)
    change = redecide(request.gated, request.policy, request.profile)
    if request.out is not None:
        storage.write_table(request.out, change.rows)
    document: dict[str, Any] = change.document()
    rows = [(verdict, document["before"][verdict], document["after"][verdict]) for verdict in document["before"]]
    limits = [tuple(limit.values())[:4] for limit in document["limits"]]
    tables = (
        (f"{document['samples']:,} samples decided again", ("verdict", "before", "after"), rows),
        ("Limits", ("rule", "score", "limit", "from"), limits),
    )
    change_of_yield = f"Yield {document['yield_before']:.1%} → {document['yield_after']:.1%}"
    output.result(document, (*tables, f"{change_of_yield}; {document['to_gate_again']:,} samples would have to be gated again"))
