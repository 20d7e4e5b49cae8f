"""Recorded StyleGAN3 generators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qualitygate.checkpoints.contents import TensorGroup
from reference.vectors import Case, Vectors


def _snapshot(vectors: Vectors) -> Mapping[str, Any]:
    """What a network snapshot holds: the averaged network with the arguments it was made with."""
    settings = {"init_args": [], "init_kwargs": vectors.settings()}
    return {"G_ema": TensorGroup("", vectors.under("state_dict/"), settings, "Generator")}


def _name(key: str) -> str | None:
    """Recorded names are those of the original's modules, of which the one with three units is to-RGB."""
    kind, _, module = key.partition("/synthesis.")
    if not module:
        return "w" if key == "w" else None
    if module.endswith("_3"):
        return "rgb" if kind == "rgb" else "style/rgb"
    return f"{kind}/{module}"


def _case(file: str) -> Case:
    return Case(
        file,
        _snapshot,
        "NVIDIA StyleGAN3",
        _name,
        images={"output/image": {}, "output/image_psi0.7": {"psi": 0.7}, "output/image_psi0.7_cutoff3": {"psi": 0.7, "cutoff": 3}},
        truncated={"w_psi0.7": "output/image_psi0.7"},
    )


CASES = (_case("nvlabs_stylegan3_t_r32"), _case("nvlabs_stylegan3_r_r32_cond"))
