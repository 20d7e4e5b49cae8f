"""What follows from the numbers, in sentences: which methods find which kinds of defect, and which nothing finds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

FOUND, HINTED = 0.9, 0.75
"""AUC from which a score is said to find a defect, or to hint at it."""
GATE = "gate, least correction"
ORACLE = "oracle: "
"""How corrections begin that are told the truth: what could be reached."""

RULE = (
    f"A score *finds* a defect from an AUC of {FOUND:g} and *hints* at it from {HINTED:g}; rivals are judged by the same rule. "
    "Scores of different R and layers are alternatives, and nobody knows beforehand which one to look at: what the default policy "
    "looks at is named apart."
)

_NAMED = 4  # how many scores a sentence names before it counts the rest


def sentences(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One line for each planted checkpoint, after a summary."""
    painted = {name: result for name, result in results.items() if result["paints"]}
    missed = [name for name, result in painted.items() if not _from(result["detection"], HINTED)]
    silent = [name for name, result in painted.items() if result["detection"][result["default_score"]]["auc"] < HINTED]
    yield f"Seen by no score at all: {_listed(missed)}. Not seen by the default policy's score: {_listed(silent)}."
    yield ""
    for name, result in painted.items():
        yield f"- **{name}**: {_seen(result)}; {_named_apart(result)}. {_mended(result['correction'])}"
    for name, result in results.items():
        if result["units"] and not result["paints"]:
            yield f"- **{name}**, harmless: {_accused(result['detection'])}; {_named_apart(result)}."
        elif not result["units"]:
            gate = result["correction"][GATE]
            changed, rejected = short(gate["others_correct"]), short(gate["others_reject"])
            yield f"- **{name}** planted: the gate changes {changed} of the samples and rejects {rejected}."


def _seen(result: Mapping[str, Any]) -> str:
    detection = result["detection"]
    finders, hinting = _from(detection, FOUND), _from(detection, HINTED)
    if finders:
        more = f" and {len(finders) - _NAMED} more" if len(finders) > _NAMED else ""
        return f"found by {_with_auc(detection, finders[:_NAMED])}{more}"
    if hinting:
        return f"not found, hinted at by {_with_auc(detection, hinting[:_NAMED])}"
    return f"**nothing finds it**, best is {_with_auc(detection, _from(detection, 0.0)[:1])}"


def _accused(detection: Mapping[str, Mapping[str, float]]) -> str:
    loud = _from(detection, HINTED)
    return f"accused by {_with_auc(detection, loud)}" if loud else "no score takes it for a defect"


def _named_apart(result: Mapping[str, Any]) -> str:
    detection = result["detection"]
    rival = next(score for score in _from(detection, 0.0) if score.startswith("rival: "))
    default = _with_auc(detection, [result["default_score"]])
    return f"the default policy's {default}, best {_with_auc(detection, [rival])}"


def _mended(correction: Mapping[str, Mapping[str, float]]) -> str:
    honest = [name for name in correction if not name.startswith(ORACLE)]
    best = max(honest, key=lambda name: (correction[name]["repaired"], -correction[name]["harm"]))
    gate = correction[GATE]
    if correction[best]["mark_gone"] < 0.05 and gate["mark_gone"] < 0.05:
        return "No correction removes the mark."
    return (
        f"Best repair: {best} ({short(correction[best]['repaired'])}); the gate repairs {short(gate['repaired'])}, removes the "
        f"mark of {short(gate['mark_gone'])} and lets {short(gate['firing_accept'])} through untouched."
    )


def _from(detection: Mapping[str, Mapping[str, float]], least: float) -> list[str]:
    """Scores with at least this AUC, best first."""
    ranked = sorted(detection, key=lambda score: -detection[score]["auc"])
    return [score for score in ranked if detection[score]["auc"] >= least]


def _with_auc(detection: Mapping[str, Mapping[str, float]], scores: list[str]) -> str:
    return ", ".join(f"{score} ({short(detection[score]['auc'])})" for score in scores)


def _listed(names: list[str]) -> str:
    return ", ".join(f"**{name}**" for name in names) or "none"


def short(value: float | None) -> str:
    """``1.00``, ``.95``, ``.012``, ``0``; a dash for what was not measured."""
    if value is None or math.isnan(value):
        return "–"
    return "0" if value == 0 else f"{value:.{3 if value < 0.0995 else 2}f}".removeprefix("0")
