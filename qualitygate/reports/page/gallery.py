"""The gallery: the exhibit's samples with their scores and the command that makes each again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from qualitygate.records.gate import SampleRecord
from qualitygate.reports.exhibit_table import Shown
from qualitygate.reports.lettering import number
from qualitygate.reports.page.markup import data_uri
from qualitygate.reports.page.material import Gated


@dataclass(frozen=True)
class Tile:
    """One sample as the template shows it. Pictures are addresses that hold them."""

    id: int
    seed: int | None
    roles: tuple[str, ...]
    verdict: str
    headline: str
    rank: int
    """Its place by the deciding score, the lowest first."""
    scores: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    pictures: tuple[tuple[str, str], ...]
    command: str


def tiles(gated: Gated, profile: str = "PROFILE") -> list[Tile]:
    """Tiles of a gated set's exhibit. ``profile`` is where the commands say that the profile lies."""
    order = sorted(range(len(gated.exhibit)), key=lambda place: _headline(gated, gated.exhibit[place].record))
    rank = {place: number for number, place in enumerate(order)}
    return [_tile(gated, one, rank[place], profile) for place, one in enumerate(gated.exhibit)]


def command_again(record: SampleRecord, profile: str) -> str:
    """The command that gates exactly this sample again."""
    provenance = record.provenance
    words = ["qualitygate", "gate", provenance.checkpoint, "--profile", profile]
    words += ["--ids", f"{record.id}:{record.id + 1}"]
    words += ["--latents", "LATENTS.npz"] if provenance.seed is None else ["--seed", str(provenance.seed)]
    return shlex.join([*words, "--out", f"sample-{record.id}"])


def _tile(gated: Gated, one: Shown, rank: int, profile: str) -> Tile:
    record = one.record
    made = [("generated", one.image), ("corrected", one.corrected), ("low-rate neurons", one.heat)]
    return Tile(
        id=record.id,
        seed=record.provenance.seed,
        roles=tuple(role.value for role in one.roles),
        verdict=record.verdict.value,
        headline=f"{gated.headline} {number(_headline(gated, record))}",
        rank=rank,
        scores=_scores(gated.rules, record),
        reasons=record.reasons,
        pictures=tuple((title, data_uri(picture)) for title, picture in made if picture is not None),
        command=command_again(record, profile),
    )


def _scores(first: Sequence[str], record: SampleRecord) -> tuple[tuple[str, str], ...]:
    """Scores that rules name, then the others; the corrections that were tried are facts of their own."""
    ordered = [name for name in first if name in record.scores]
    ordered += sorted(name for name in record.scores if name not in ordered)
    facts = [(name, number(record.scores[name])) for name in ordered]
    if record.strength is not None:
        facts.append(("strength of the correction", number(record.strength)))
    if record.moved is not None:
        facts.append(("moved", f"{record.moved:.2%} of the range of values"))
    return tuple(facts)


def _headline(gated: Gated, record: SampleRecord) -> float:
    value = record.scores.get(gated.headline, math.inf)
    return math.inf if math.isnan(value) else value
