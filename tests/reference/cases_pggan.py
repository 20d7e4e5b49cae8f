"""How the recorded PGGANs are stored and what their layers are called."""

from __future__ import annotations

import re
from typing import Any

from qualitygate.checkpoints.contents import TensorGroup
from reference.vectors import Case, Vectors

_LOD = "tests/checkpoints/test_layouts_pggan.py: the level of detail is part of the checkpoint"
_CLASSES = "tests/checkpoints/test_layouts_pggan.py: the value of an image stands beside those of the classes"
_RAW = "tests/checkpoints/test_layouts_pggan.py: the averaged generator is preferred"
_GENFORCE_ELSEWHERE = {"output/image_lod0.4": _LOD, "output/image_lod1.0": _LOD, "checkpoint_generator_output/image": _RAW}
_CLASSES_ELSEWHERE = dict.fromkeys(("disc/output", "disc/activation/layer7", "disc/activation/layer8"), _CLASSES)


def genforce_tree(vectors: Vectors) -> dict[str, Any]:
    return {
        "generator": vectors.under("checkpoint/generator/"),
        "discriminator": vectors.under("disc/state_dict/"),
        "generator_smooth": vectors.under("state_dict/"),
    }


def genforce_tree_with_settings(vectors: Vectors) -> dict[str, Any]:
    """Tanh and group size are in no tensor."""
    tree = genforce_tree(vectors)
    group_size = vectors.settings("discriminator_kwargs")["minibatch_std_group_size"]
    return tree | {
        "generator_smooth": TensorGroup("", tree["generator_smooth"], {"final_tanh": True}),
        "discriminator": TensorGroup("", tree["discriminator"], {"minibatch_std_group_size": group_size}),
    }


def hub_tree(vectors: Vectors) -> dict[str, Any]:
    generator = vectors.under("state_dict/")
    return {
        "config": {"alpha": 0, "latentVectorDim": 32, "leakyReluLeak": 0.2, "lossCriterion": "WGANGP"},
        "netG": {name: tensor * 0.5 for name, tensor in generator.items()},
        "netD": vectors.under("disc/state_dict/"),
        "avgG": generator,
    }


def _genforce_name(key: str) -> str | None:
    found = re.fullmatch(r"(?:disc/)?(activation/layer\d+)", key)
    return found and found[1]


def _gan_dissection_name(key: str) -> str | None:
    """Layers are counted from 1."""
    found = re.fullmatch(r"activation/layer(\d+)", key)
    return found and f"activation/layer{int(found[1]) - 1}"


def _hub_name(key: str) -> str | None:
    early = {"activation/formatLayer": "activation/layer0", "activation/groupScale0.0": "activation/layer1"}
    found = re.fullmatch(r"activation/scaleLayers\.(\d)\.(\d)", key)
    return f"activation/layer{2 + 2 * int(found[1]) + int(found[2])}" if found else early.get(key)


CASES = [
    Case("genforce_pggan_r32", genforce_tree, "genforce PGGAN", _genforce_name, elsewhere=_GENFORCE_ELSEWHERE),
    Case(
        "genforce_pggan_r32_fused_label",
        genforce_tree_with_settings,
        "genforce PGGAN",
        _genforce_name,
        elsewhere=_GENFORCE_ELSEWHERE | _CLASSES_ELSEWHERE,
    ),
    Case(
        "gandissect_proggan_r32", lambda vectors: {"state_dict": vectors.under("state_dict/")}, "GAN Dissection PGGAN", _gan_dissection_name
    ),
    Case("fb_pgan_r32", hub_tree, "torch hub PGAN", _hub_name, elsewhere={"output/image_alpha0.3": _LOD}),
]
