"""BigGAN, BigGAN-deep and U-Net GAN."""

from __future__ import annotations

import re
from typing import Any

from qualitygate.checkpoints.contents import TensorGroup
from reference.vectors import Case, Vectors


def _snapshot(vectors: Vectors) -> dict[str, Any]:
    """The files of one ajbrock snapshot; each is a bare state dict."""
    return {"G_ema": vectors.under("state_dict/"), "D": vectors.under("disc/state_dict/")}


def _folder(vectors: Vectors) -> TensorGroup:
    return TensorGroup("", vectors.under("state_dict/"), vectors.settings())


def _ajbrock(key: str) -> str | None:
    if found := re.fullmatch(r"activation/blocks\.(\d+)\.0\.(relu[12])", key):
        return f"activation/block{found[1]}.{found[2]}"
    if found := re.fullmatch(r"activation/blocks\.(\d+)\.([01])", key):
        return f"block{found[1]}.{('sum', 'attention')[int(found[2])]}"
    return {"shared": "label", "activation/linear": "linear", "activation/output_layer.1": "activation/output.relu"}.get(key)


def _hugging_face(key: str) -> str | None:
    attention = 6  # stands among the blocks and counts as one of their modules
    if found := re.fullmatch(r"activation/generator\.layers\.(\d+)(?:\.relu(\d))?", key):
        module = int(found[1])
        block = module - (module >= attention)
        if found[2]:
            return f"activation/block{block}.relu{int(found[2]) + 1}"
        return f"block{block}.{'attention' if module == attention else 'sum'}"
    names = {"class_embedding": "label", "activation/generator.gen_z": "linear", "activation/generator.relu": "activation/output.relu"}
    return names.get(key)


_TRUNCATED = {"output/image": {"psi": 0.4}, "output/image_trunc0.433": {"psi": 0.433}, "output/image_trunc1.0": {}}

CASES = (
    Case("biggan_r32_mybn", _snapshot, "ajbrock BigGAN", _ajbrock),
    Case("biggan_r64", _snapshot, "ajbrock BigGAN", _ajbrock),
    Case("biggan_r32_ch8_nohier", _snapshot, "ajbrock BigGAN", _ajbrock),
    Case("hf_biggan_deep_r32", _folder, "Hugging Face BigGAN-deep", _hugging_face, images=_TRUNCATED),
    Case(
        "unetgan_uncond_r128",
        _snapshot,
        "U-Net GAN",
        _ajbrock,
        elsewhere={
            "disc/output": "the map of pixels: tests/checkpoints/test_layouts_biggan.py",
            "disc/output_middle": "the value of the image: tests/checkpoints/test_layouts_biggan.py",
        },
    ),
)
