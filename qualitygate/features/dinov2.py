"""DINOv2 (Oquab et al. 2023; with registers Darcet et al. 2024): a vision transformer that learned from images alone, without classes.
Distances of its features go with what people call faithful more than those of Inception's do (Stein et al. 2023).

Weights are read from

- ``dinov2_vits14_pretrain.pth`` of facebookresearch/dinov2, and b, l and g beside s, with registers (``…_reg4_pretrain.pth``) or without;
  safetensors and TorchScript too, where the tensors have the same names;
- ``model.safetensors`` of Hugging Face's ``facebook/dinov2-*`` and ``facebook/dinov2-with-registers-*``.

All sizes are read off the tensors; heads are 64 wide in every one of them. Images are made 224×224 as Stein et al. do: as Pillow's bicubic
filter would, to 8 bits, whatever their proportions.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qualitygate.features.extractor import Extractor, bicubic_resized, imagenet_scaled, in_colour
from qualitygate.features.weights import Weights, set_parameter

SIZE = 224
PATCH = 14
HEAD = 64  # width of a head of the attention
_GRID = SIZE // PATCH
_EPSILON = 1e-6  # of the norms
_FORMS = "dinov2_vit*14_pretrain.pth of facebookresearch/dinov2, with or without registers, or Hugging Face's model.safetensors of it"
_FEED_FORWARD = ("blocks.0.mlp.fc1.weight", "blocks.0.mlp.w12.weight")
_BLOCK = re.compile(r"blocks\.\d+\.norm1\.weight")
_HUGGING_FACE = {
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.": "",
    "encoder.layer.": "blocks.",
    "attention.output.dense.": "attn.proj.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.weights_in.": "mlp.w12.",
    "mlp.weights_out.": "mlp.w3.",
    "layernorm.": "norm.",
}
"""Parts of Hugging Face's names, in the order in which they are replaced."""


class Attention(nn.Module):
    """Every token looks at every other, by heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, device="meta")
        self.proj = nn.Linear(width, width, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """The feed-forward part of s, b and l."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden, device="meta")
        self.fc2 = nn.Linear(hidden, width, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class GatedPerceptron(nn.Module):
    """The feed-forward part of g (SwiGLU, Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden, device="meta")
        self.w3 = nn.Linear(hidden, width, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        gate, hidden = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * hidden)


class LayerScale(nn.Module):
    """A factor for each of the features that a part adds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a norm and added to what came in."""

    def __init__(self, width: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, _EPSILON, device="meta") for _ in range(2))
        self.attn = Attention(width)
        self.mlp = GatedPerceptron(width, hidden) if gated else Perceptron(width, hidden)
        self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """Each patch of the image as a token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH, device="meta")

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class DINOv2(nn.Module):
    """The transformer for images of 224×224; parameters have their published names and are to be filled in."""

    def __init__(self, width: int, depth: int, hidden: int, *, gated: bool, registers: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width, device="meta"))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + _GRID**2, width, device="meta"))
        if registers:
            self.register_tokens = nn.Parameter(torch.empty(1, registers, width, device="meta"))
        self.registers = registers
        self.patch_embed = PatchEmbedding(width)
        self.blocks = nn.ModuleList(Block(width, hidden, gated) for _ in range(depth))
        self.norm = nn.LayerNorm(width, _EPSILON, device="meta")
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """The class token after the last norm (N, width), of RGB images (N, 3, 224, 224) in [-1, 1]."""
        patches = self.patch_embed(imagenet_scaled(images))
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        if self.registers:
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(images), -1, -1), x[:, 1:]], dim=1)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.norm(x[:, 0])
        return features


class DINOv2Extractor(Extractor):
    """The class token of DINOv2 after its last norm. It works where the network is."""

    def __init__(self, network: DINOv2, key: str) -> None:
        self.key = key
        self.features = network.norm.normalized_shape[0]
        self._network = network

    def __call__(self, images: Tensor) -> Tensor:
        device = self._network.cls_token.device
        features: Tensor = self._network(bicubic_resized(in_colour(images.to(device)), SIZE))
        return features


def dinov2_of(weights: Weights) -> DINOv2:
    """The network, on the CPU. Raises `CheckpointError` where these are other weights."""
    weights = _under_published_names(weights)
    tensors = weights.tensors
    first = next((name for name in _FEED_FORWARD if name in tensors), None)
    if first is None or not {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.ls1.gamma"} <= tensors.keys():
        raise weights.wrong(f"tensors {', '.join(list(tensors)[:4])} …", _FORMS)
    width = tensors["cls_token"].numel()
    patch = tuple(tensors["patch_embed.proj.weight"].shape[2:])
    if not width or width % HEAD or patch != (PATCH, PATCH):
        raise weights.wrong(f"{width} features of patches {patch}", f"a multiple of {HEAD}, of patches {(PATCH, PATCH)}")

    def count(name: str) -> int:
        """Rows of a tensor whose last dimension is the width."""
        return tensors[name].numel() // width if name in tensors else 0

    gated = first == _FEED_FORWARD[1]
    hidden = count(first) // (2 if gated else 1)
    depth = sum(_BLOCK.fullmatch(name) is not None for name in tensors)
    network = DINOv2(width, depth, hidden, gated=gated, registers=count("register_tokens"))
    positions = weights.take("pos_embed", 1, count("pos_embed"), width)
    for name, parameter in network.named_parameters():
        owner, _, last = name.rpartition(".")
        value = _at_our_size(positions, weights, network.registers) if name == "pos_embed" else weights.take(name, *parameter.shape)
        set_parameter(network.get_submodule(owner), last, value)
    return network


def _at_our_size(positions: Tensor, weights: Weights, registers: int) -> Tensor:
    """Embeddings of positions (1, 1 + side², width), that of the class token first, brought to 16×16 patches as the published networks do:
    with registers to that size, with a low-pass filter; without, by the factor (16 + 0.1) / side."""
    side = math.isqrt(max(0, positions.shape[1] - 1))
    if not side or side**2 + 1 != positions.shape[1]:
        raise weights.wrong(f"{positions.shape[1]} embeddings of positions", "one for the class token, and those of a square of patches")
    if side == _GRID:
        return positions
    square = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if registers:
        square = F.interpolate(square, size=(_GRID, _GRID), mode="bicubic", antialias=True)
    else:
        square = F.interpolate(square, scale_factor=(_GRID + 0.1) / side, mode="bicubic")
    return torch.cat([positions[:, :1], square.flatten(2).transpose(1, 2)], dim=1)


def _under_published_names(weights: Weights) -> Weights:
    """Hugging Face's tensors under the names of facebookresearch/dinov2, which are left as they are."""
    if "embeddings.cls_token" not in weights.tensors:
        return weights
    tensors = {}
    for name, tensor in weights.tensors.items():
        for theirs, published in _HUGGING_FACE.items():
            name = name.replace(theirs, published)
        tensors[name] = tensor
    renamed, width = replace(weights, tensors=tensors), tensors["cls_token"].numel()
    for block in [name.removesuffix("norm1.weight") for name in tensors if _BLOCK.fullmatch(name)]:
        for part, shape in (("weight", (width, width)), ("bias", (width,))):
            parts = [renamed.take(f"{block}attention.attention.{one}.{part}", *shape) for one in ("query", "key", "value")]
            tensors[f"{block}attn.qkv.{part}"] = torch.cat(parts)
    return renamed
