"""The fixed grid of planted checkpoints."""

from __future__ import annotations

from typing import NamedTuple

from qualitygate.testing.planted import Defect


class Case(NamedTuple):
    """One planted checkpoint of the grid.

    Attributes:
        name: short, as it heads a column.
        defect: what is planted.
        seed: of direction, units, place and colour.
    """

    name: str
    defect: Defect
    seed: int


_DEFECTS = {
    "nothing": Defect(units=0),
    "decoy-1": Defect("4x4", 1, 0.01, mark=None),
    "decoy-10": Defect("8x8", 10, 0.01, mark=None),
    "rare-1": Defect("4x4", 1, 0.001, mark="blob"),
    "half-1": Defect("4x4", 1, 0.01, mark="stripes"),
    "half-10": Defect("4x4", 10, 0.01, mark="blob"),
    "soft-10": Defect("4x4", 10, 0.01, edge="soft", mark="cast"),
    "often-1": Defect("4x4", 1, 0.05, edge="soft", mark="texture"),
    "often-10": Defect("4x4", 10, 0.05, mark="frame"),
    "slab-10": Defect("4x4", 10, 0.01, shape="slab", mark="blob"),
    "rare-slab-10": Defect("4x4", 10, 0.001, shape="slab", edge="soft", mark="stripes"),
    "modes-10": Defect("4x4", 10, 0.01, modes=3, mark="texture"),
    "mid-10": Defect("8x8", 10, 0.01, mark="stripes"),
    "mid-slab-1": Defect("8x8", 1, 0.05, shape="slab", edge="soft", mark="blob"),
    "late-1": Defect("16x16", 1, 0.01, mark="blob"),
    "late-rare-10": Defect("16x16", 10, 0.001, mark="frame"),
    "end-10": Defect("32x32", 10, 0.01, mark="texture"),
    "busy-10": Defect("4x4", 10, 0.01, busy=True, mark="blob"),
    "busy-slab-10": Defect("4x4", 10, 0.01, shape="slab", busy=True, mark="stripes"),
    "linear-1": Defect("4x4", 1, 0.01, edge="linear", mark="blob"),
    "linear-10": Defect("4x4", 10, 0.05, edge="linear", mark="texture"),
}

GRID = tuple(Case(name, defect, seed) for seed, (name, defect) in enumerate(_DEFECTS.items()))
