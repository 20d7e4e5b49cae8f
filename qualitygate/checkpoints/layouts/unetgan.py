"""State dicts of boschresearch/unetgan: the unconditional generator, and the discriminator.

The conditional generator is stored exactly as ajbrock's BigGAN (see `biggan`).
"""

from __future__ import annotations

import torch

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout
from qualitygate.checkpoints.layouts.biggan import UNUSED, Ajbrock
from qualitygate.generators.families.biggan import BigGAN
from qualitygate.generators.families.unetgan import UNetDiscriminator


def _generator(group: TensorGroup) -> Built:
    file = Ajbrock(group.tensors)
    units, attention, bottom_width, image_channels = file.chain()
    latent_size = file.reader.shape("linear.weight", 2)[1]
    file.generator_around_norms(units, attention, bottom_width, latent_size, image_channels)
    for number, name, count in file.norms(units):
        for ours, theirs in (("scale", "gain"), ("offset", "bias")):
            file.convolution(f"norms.{number}.{ours}.0", f"{name}.{theirs}.0", latent_size, latent_size)
        gain, offset = (file.weight(f"{name}.{head}.2", count, latent_size) for head in ("gain", "bias"))
        file.conditional_norm(number, name, gain, offset, stage=".2")
    with torch.device("meta"):
        generator = BigGAN(
            latent_size, 0, 0, units, attention, "whole", hidden=latent_size, bottom_width=bottom_width, image_channels=image_channels
        )
    return Built(generator, file.tensors, file.reader.unread(UNUSED))


def _discriminator(group: TensorGroup) -> Built:
    file = Ajbrock(group.tensors)
    reader = file.reader
    numbers = reader.numbered(r"blocks\.(\d+)\.0\.conv1\.weight")
    count = len(numbers) // 2
    if numbers != list(range(2 * count)) or not count:
        raise DoesNotFit(f"blocks {numbers} are not an encoder and a decoder of the same length")
    outputs = [reader.shape(f"blocks.{number}.0.conv1.weight", 4)[0] for number in numbers]
    encoder, decoder = outputs[:count], outputs[count:]
    image_channels = reader.shape("blocks.0.0.conv1.weight", 4)[1]
    for index, (before, after) in enumerate(zip([image_channels, *encoder[:-1]], encoder, strict=True)):
        file.down_block(f"encoder.{index}", f"blocks.{index}.0", before, after, after, shortcut=True)
    for index, (before, skip, after) in enumerate(zip([encoder[-1], *decoder[:-1]], [0, *encoder[-2::-1]], decoder, strict=True)):
        file.up_block(f"decoder.{index}", f"blocks.{count + index}.0", before + skip, after)
    attention = file.attended(count)
    for index in attention:
        file.attention(f"attention.{index}", f"blocks.{index}.1", encoder[index])
    label_size = reader.shape("embed.weight", 2)[0] if reader.has("embed.weight") else 0
    file.projection_head("head", "linear_middle", "embed_middle", encoder[-1], label_size)
    file.projection_head("pixel_head", f"blocks.{2 * count}", "embed", decoder[-1], label_size, kernel=(1, 1))
    with torch.device("meta"):
        discriminator = UNetDiscriminator(encoder, decoder, attention, label_size, image_channels)
    # `linear` is stored and never used
    return Built(discriminator, file.tensors, reader.unread(rf"linear\..*|{UNUSED}"))


LAYOUTS = (
    Layout(
        "U-Net GAN",
        "biggan",
        "generator",
        (r"linear\.weight", r"blocks\.0\.0\.bn1\.gain\.0\.weight", r"blocks\.0\.0\.conv1\.weight", r"output_layer\.2\.weight"),
        _generator,
    ),
    Layout(
        "U-Net GAN discriminator",
        "biggan",
        "discriminator",
        (r"linear_middle\.weight", r"blocks\.0\.0\.conv1\.weight", r"blocks\.0\.0\.conv_sc\.weight"),
        _discriminator,
    ),
)
