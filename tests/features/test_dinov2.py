"""DINOv2 against what the published code makes of small random weights, from every kind of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from features.weight_files import save_plain, save_script
from PIL import Image
from reference.vectors import Vectors, assert_agrees, load
from safetensors.torch import save_file
from torch import Tensor

from qualitygate.errors import CheckpointError
from qualitygate.features.extractor import bicubic_resized, eight_bit
from qualitygate.features.registry import make_extractor

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def recorded() -> Vectors:
    return load("dinov2")


@pytest.fixture(scope="module")
def images(recorded: Vectors) -> Tensor:
    return recorded.tensors["input/images"].repeat_interleave(7, dim=2).repeat_interleave(7, dim=3)


def with_registers(recorded: Vectors) -> Tensors:
    return recorded.under("state_dict/")


def plain(recorded: Vectors) -> Tensors:
    return {name: one for name, one in with_registers(recorded).items() if name != "register_tokens"}


def gated(recorded: Vectors) -> Tensors:
    return {name: one for name, one in plain(recorded).items() if ".mlp." not in name} | recorded.under("swiglu/")


def as_hugging_face(published: Tensors) -> Tensors:
    """The same tensors under the names of `Dinov2Model`."""
    outside = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "pos_embed": "embeddings.position_embeddings",
        "register_tokens": "embeddings.register_tokens",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    inside = {"attn.proj": "attention.output.dense", "mlp.w12": "mlp.weights_in", "mlp.w3": "mlp.weights_out"}
    found = {}
    for name, tensor in published.items():
        if name in outside:
            found[outside[name]] = tensor
            continue
        _, block, part = name.split(".", 2)
        module, _, last = part.rpartition(".")
        if module == "attn.qkv":
            for one, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"encoder.layer.{block}.attention.attention.{one}.{last}"] = third.contiguous()
        elif last == "gamma":
            found[f"encoder.layer.{block}.layer_scale{module[-1]}.lambda1"] = tensor
        else:
            found[f"encoder.layer.{block}.{inside.get(module, module)}.{last}"] = tensor
    return found


def save_safetensors(tensors: Tensors, path: Path) -> Path:
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("tensors", "output", "save"),
    [
        (plain, "output/features", save_plain),
        (with_registers, "output/features_registers", save_safetensors),
        (gated, "output/features_swiglu", save_script),
        (lambda recorded: as_hugging_face(with_registers(recorded)), "output/features_registers", save_safetensors),
        (lambda recorded: as_hugging_face(gated(recorded)), "output/features_swiglu", save_safetensors),
    ],
)
def test_features_are_those_of_the_published_code(
    recorded: Vectors,
    images: Tensor,
    tmp_path: Path,
    tensors: Callable[[Vectors], Tensors],
    output: str,
    save: Callable[[Tensors, Path], Path],
) -> None:
    extractor = make_extractor("dinov2", weights=save(tensors(recorded), tmp_path / "dinov2.pth"))
    assert extractor.features == 128
    assert extractor.key.endswith("antialiased bicubic to 224 in 8 bits, float32")
    found = extractor(images)
    assert_agrees(found, recorded.tensors[output], output)
    torch.testing.assert_close(extractor(images[:1]), found[:1], rtol=1e-4, atol=1e-5)
    grey = images[:, :1, :50, :40]
    torch.testing.assert_close(extractor(grey), extractor(bicubic_resized(grey.expand(-1, 3, -1, -1), 224)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [40, 300])
def test_images_are_resized_as_pillow_does(size: int) -> None:
    image = eight_bit(torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    ours = (bicubic_resized(image, 224) + 1.0) * 127.5
    pixels = ((image[0] + 1.0) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    theirs = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float32)
    difference = np.abs(ours[0].permute(1, 2, 0).numpy() - theirs)
    assert difference.max() < 1.01  # Pillow's weights are fixed-point numbers
    assert difference.mean() < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"features.0.weight": torch.zeros(1)}, r"tensors features\.0\.weight …"),
        (lambda t: {name: one for name, one in t.items() if "gamma" not in name}, "dinov2_vit"),
        (lambda t: {**t, "patch_embed.proj.weight": torch.zeros(128, 3, 16, 16)}, r"128 features of patches \(16, 16\)"),
        (lambda t: {**t, "cls_token": torch.zeros(1, 1, 96)}, "96 features"),
        (lambda t: {**t, "pos_embed": torch.zeros(1, 360, 128)}, "360 embeddings of positions"),
        (lambda t: {name: one for name, one in t.items() if name != "norm.weight"}, r"without a tensor norm\.weight"),
        (lambda t: {name: one for name, one in t.items() if ".mlp.fc1" not in name}, "dinov2_vit"),
        (lambda t: {**t, "norm.bias": torch.full((128,), torch.nan)}, r"norm\.bias with NaN"),
    ],
)
def test_other_weights_are_refused(recorded: Vectors, tmp_path: Path, change: Callable[[Tensors], Tensors], message: str) -> None:
    path = save_plain(change(plain(recorded)), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        make_extractor("dinov2", weights=path)
