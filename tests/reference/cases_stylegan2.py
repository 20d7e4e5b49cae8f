"""How the recorded StyleGAN2s are stored and what their layers are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from qualitygate.checkpoints.contents import TensorGroup
from reference.vectors import Case, Vectors

_OTHER_WEIGHTS = "tests/checkpoints/test_layouts_stylegan2.py: the averaged generator is preferred"
_OTHER_CLAMP = "tests/checkpoints/test_layouts_stylegan2.py: the clamp is read off the settings"


def genforce_tree(vectors: Vectors) -> Mapping[str, Any]:
    return {
        "generator": vectors.under("checkpoint/generator/"),
        "discriminator": vectors.under("disc/state_dict/"),
        "generator_smooth": vectors.under("state_dict/"),
    }


def nvidia_tree(vectors: Vectors, **changed: Any) -> Mapping[str, Any]:
    """What is read of a pickle: stored networks with their constructors' arguments."""
    generator = {"init_args": [], "init_kwargs": vectors.settings() | changed}
    discriminator = {"init_args": [], "init_kwargs": vectors.settings("discriminator_kwargs")}
    return {
        "D": TensorGroup("", vectors.under("disc/state_dict/"), discriminator, "Discriminator"),
        "G_ema": TensorGroup("", vectors.under("state_dict/"), generator, "Generator"),
    }


def rosinality_tree(vectors: Vectors) -> Mapping[str, Any]:
    return {
        "d": vectors.under("disc/state_dict/"),
        "g_ema": vectors.under("state_dict/"),
        "latent_avg": vectors.tensors["checkpoint/latent_avg"],
    }


def _genforce_name(key: str) -> str | None:
    if found := re.fullmatch(r"(activation|style)/synthesis\.layer(\d+)", key):
        return f"{found[1]}/layer{found[2]}"
    if found := re.fullmatch(r"rgb/synthesis\.output(\d+)", key):
        return f"rgb/{found[1]}"
    return "w" if key == "w" else None


def _nvidia_name(key: str) -> str | None:
    found = re.fullmatch(r"(\w+)/synthesis\.b(\d+)(?:\.(conv0|conv1|torgb|skip))?", key)
    if not found:
        return "w" if key == "w" else None
    kind, size, part = found.groups()
    block = int(size).bit_length() - 3
    if part in ("conv0", "conv1"):
        return f"{kind}/layer{2 * block - (part == 'conv0')}"
    if part == "torgb":
        return f"style/rgb{block}" if kind == "style" else f"rgb/{block}"
    return f"shortcut/{block}" if part == "skip" else f"block/{block}"


def _rosinality_name(key: str) -> str | None:
    if found := re.fullmatch(r"(activation|style)/(?:conv1|convs\.(\d+))", key):
        return f"{found[1]}/layer{0 if found[2] is None else int(found[2]) + 1}"
    if found := re.fullmatch(r"rgb/(?:to_rgb1|to_rgbs\.(\d+))", key):  # recorded with the image so far
        return f"image/{0 if found[1] is None else int(found[1]) + 1}"
    return "w" if key == "w" else None


def _genforce(name: str) -> Case:
    return Case(
        name,
        genforce_tree,
        "genforce StyleGAN2",
        _genforce_name,
        images={
            "output/image": {},
            "output/image_psi0.7_layers4": {"psi": 0.7, "cutoff": 4},
            "output/image_psi0.7_layers8": {"psi": 0.7, "cutoff": 8},
        },
        truncated={f"wp_psi0.7_layers{count}": f"output/image_psi0.7_layers{count}" for count in (4, 8)},
        elsewhere={"checkpoint_generator_output/image": _OTHER_WEIGHTS},
    )


def _nvidia(name: str, elsewhere: Mapping[str, str] | None = None) -> Case:
    return Case(
        name,
        nvidia_tree,
        "NVIDIA StyleGAN2",
        _nvidia_name,
        images={
            "output/image": {},
            "output/image_psi0.7": {"psi": 0.7},
            "output/image_psi0.7_cutoff3": {"psi": 0.7, "cutoff": 3},
            "output/image_noise_none": {"noise": "none"},
        },
        truncated={"w_psi0.7": "output/image_psi0.7"},
        elsewhere=elsewhere or {},
    )


CASES = [
    _genforce("genforce_stylegan2_r32_skip"),
    _genforce("genforce_stylegan2_r32_origin_label"),
    _nvidia("nvlabs_stylegan2_r32_skip", {"output/image_conv_clamp0.5": _OTHER_CLAMP}),
    _nvidia("nvlabs_stylegan2_r32_resnet"),
    _nvidia("nvlabs_stylegan2_r32_orig"),
    _nvidia("nvlabs_stylegan2_r32_skip_cond"),
    Case(
        "rosinality_stylegan2_r32",
        rosinality_tree,
        "rosinality StyleGAN2",
        _rosinality_name,
        images={"output/image": {}, "output/image_psi0.7": {"psi": 0.7}},
        truncated={"w_psi0.7": "output/image_psi0.7"},
    ),
]
