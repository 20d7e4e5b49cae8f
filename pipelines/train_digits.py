#!/usr/bin/env python3
"""Train a small PGGAN on scikit-learn's 1,797 handwritten digits and keep snapshots from noise to converged.

    python pipelines/train_digits.py --out digits
    qualitygate dynamics digits

The folder gets `snapshot-000000.safetensors`, … (averaged generator and discriminator, with `kimg`, the thousands of real
images seen so far, in the metadata), `reals.npz` (the images that were learned from, and their labels) and `resume.pt`.
A run that was interrupted goes on where it stopped; the same seed and settings give the same snapshots on the same machine.

The recipe: non-saturating loss, R1 on every eighth step, Adam with an equalised learning rate, an average of the generator.
"""

from __future__ import annotations

import argparse
import copy
import math
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qualitygate
from qualitygate import storage
from qualitygate.generators.families.pggan import PGGAN, PGGANDiscriminator

LATENT_SIZE, SIZE = 512, 32
GENERATOR_UNITS = (16, 48, 48, 48, 32, 32, 16, 16)
DISCRIMINATOR_UNITS = (8, 8, 16, 16, 32, 32, 32, 32, 32)
BATCH = 32
LEARNING_RATE = 0.003
R1_WEIGHT, R1_EVERY = 0.3, 8  # γ of the penalty; its steps are so much stronger as they are rarer
AVERAGE_HALFLIFE_KIMG = 2.0
SHARES = (0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # of the run, at which a snapshot is kept
SAY_EVERY = 100  # steps


@dataclass
class Training:
    """Everything that changes while training; made again from the seed, or from what `stored` said."""

    generator: PGGAN
    average: PGGAN
    discriminator: PGGANDiscriminator
    optimizers: tuple[torch.optim.Adam, torch.optim.Adam]
    step: int = 0

    @property
    def kimg(self) -> float:
        return self.step * BATCH / 1000

    def stored(self) -> dict[str, object]:
        networks = (self.generator, self.average, self.discriminator)
        return {
            "step": self.step,
            "networks": [network.state_dict() for network in networks],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def restore(self, stored: dict) -> None:
        self.step = stored["step"]
        networks = (self.generator, self.average, self.discriminator)
        for network, tensors in zip(networks, stored["networks"], strict=True):
            network.load_state_dict(tensors)
        for optimizer, state in zip(self.optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(state)


def begin(seed: int, device: str) -> Training:
    random = torch.Generator().manual_seed(seed)
    generator = PGGAN(LATENT_SIZE, list(GENERATOR_UNITS), image_channels=1)
    discriminator = PGGANDiscriminator(list(DISCRIMINATOR_UNITS), image_channels=1, fused=True)
    optimizers = []
    for network in (generator, discriminator):
        groups = list(equalised(network, random))
        network.to(device)
        optimizers.append(torch.optim.Adam(groups, betas=(0.0, 0.99)))
    average = copy.deepcopy(generator).requires_grad_(False)
    return Training(generator, average, discriminator, (optimizers[0], optimizers[1]))


def equalised(network: nn.Module, random: torch.Generator) -> Iterator[dict]:
    """Draw the weights, and say how fast each of them learns.

    Adam's steps do not depend on the scale of a gradient. So a learning rate in proportion to the scale of a weight is the
    equalised learning rate of the paper, without a factor in every layer.
    """
    for name, parameter in network.named_parameters():
        scale = 1.0
        if "weight" in name:
            gain = 1.0 if name.startswith("rgb") and isinstance(network, PGGAN) else math.sqrt(2.0)
            scale = gain / math.sqrt(fan_in(parameter, isinstance(network, PGGAN)))
            nn.init.normal_(parameter, std=scale, generator=random)
        yield {"params": [parameter], "lr": LEARNING_RATE * scale}


def fan_in(weight: Tensor, generates: bool) -> int:
    """Products in each output. In the generator the dense layer comes as (inputs, units, 4, 4), a doubling as (4, 4, inputs, units)."""
    if generates and weight.shape[0] == LATENT_SIZE:
        return LATENT_SIZE
    if generates and weight.shape[:2] == (4, 4):
        return 4 * weight.shape[2]
    return weight[0].numel()


def real_images() -> tuple[Tensor, np.ndarray]:
    """The digits, float32 (1797, 1, 32, 32) in [-1, 1], and which they are."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] / 8.0 - 1.0
    large = F.interpolate(small, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    return large.clamp(-1.0, 1.0), digits.target


def train_step(training: Training, reals: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """One step of both networks. What is drawn depends on the seed and the number of the step alone."""
    random = torch.Generator().manual_seed(seed * 1_000_003 + training.step)
    device = training.generator.device
    real = reals[torch.randint(len(reals), (BATCH,), generator=random)].to(device)
    z = torch.randn(2, BATCH, LATENT_SIZE, generator=random).to(device)

    generator, discriminator = training.generator, training.discriminator
    with torch.no_grad():
        fake = images(generator, z[0])
    judged = F.softplus(discriminator(fake)).mean() + F.softplus(-discriminator(real)).mean()
    penalty = r1(discriminator, real) if training.step % R1_EVERY == 0 else 0.0
    update(training.optimizers[1], judged + penalty)

    discriminator.requires_grad_(False)
    fooled = F.softplus(-discriminator(images(generator, z[1]))).mean()
    update(training.optimizers[0], fooled)
    discriminator.requires_grad_(True)

    training.step += 1
    halflife = min(AVERAGE_HALFLIFE_KIMG, 0.05 * training.kimg)  # short at first, or noise would stay in for long
    keep = 0.5 ** (BATCH / 1000 / halflife)
    with torch.no_grad():
        for mean, now in zip(training.average.parameters(), generator.parameters(), strict=True):
            mean.lerp_(now, 1.0 - keep)
    return judged.detach(), fooled.detach()


def images(generator: PGGAN, z: Tensor) -> Tensor:
    """Images before they are clamped, which would stop the gradient."""
    return generator.finish(generator.run(generator.start(z), generator.layers[-1].index))


def r1(discriminator: PGGANDiscriminator, real: Tensor) -> Tensor:
    real = real.requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return R1_EVERY * R1_WEIGHT / 2 * slope.square().sum(dim=(1, 2, 3)).mean()


def update(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def keep_snapshot(training: Training, folder: Path, half: bool) -> None:
    path = folder / f"snapshot-{training.step:06d}.safetensors"
    if path.exists():
        return
    kept = [copy.deepcopy(network) for network in (training.average, training.discriminator)]
    generator, discriminator = (network.half() if half else network for network in kept)
    notes = {"kimg": f"{training.kimg:g}", "step": str(training.step)}
    qualitygate.save_generator(generator, path, discriminator=discriminator, notes=notes)


def keep_state(training: Training, folder: Path, settings: dict) -> None:
    with storage.new_file(folder / "resume.pt") as partial:
        torch.save({"settings": settings, "training": training.stored()}, partial)


def resume(training: Training, folder: Path, settings: dict) -> None:
    """Go on where an earlier run in this folder stopped. A different one is refused."""
    path = folder / "resume.pt"
    if path.exists():
        earlier = torch.load(path, map_location="cpu", weights_only=True)
        if earlier["settings"] != settings:
            sys.exit(f"{folder} holds another run: {earlier['settings']}, not {settings}. Choose another folder.")
        training.restore(earlier["training"])
        say(f"going on from step {training.step}")
    elif any(folder.glob("snapshot-*.safetensors")):
        sys.exit(f"{folder} holds snapshots and no resume.pt. Choose another folder.")


def train(training: Training, reals: Tensor, folder: Path, settings: dict, half: bool) -> bool:
    """Train to the end, or to Ctrl-C; says whether it came to the end."""
    steps, began, first = settings["steps"], time.monotonic(), training.step
    plan = {round(share * steps) for share in SHARES}
    stopped = Interrupt()
    while True:
        if training.step in plan:
            keep_snapshot(training, folder, half)
        if stopped.asked or training.step >= steps or training.step in plan:
            keep_state(training, folder, settings)
        if stopped.asked or training.step >= steps:
            stopped.restore()
            return training.step >= steps
        judged, fooled = train_step(training, reals, settings["seed"])
        if training.step % SAY_EVERY == 0:
            left = (time.monotonic() - began) / (training.step - first) * (steps - training.step)
            say(
                f"step {training.step}/{steps}  {training.kimg:.1f} kimg  discriminator {judged:.3f}  "
                f"generator {fooled:.3f}  {left:.0f} s left"
            )


class Interrupt:
    """Ctrl-C and SIGTERM ask to stop after the step; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, number: int, _: object) -> None:
        self.asked = True
        self.restore()
        say("stopping after this step; run the same command to go on")

    def restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Options:
    out: Path
    steps: int
    seed: int
    device: str
    half: bool


def options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("digits"), help="folder for the snapshots (default: digits)")
    parser.add_argument("--steps", type=positive, default=3000, help=f"steps of {BATCH} images (default: 3000)")
    parser.add_argument("--seed", type=int, default=0, help="decides weights and order of images (default: 0)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--half", action="store_true", help="store the snapshots in float16, at half the size")
    return Options(**vars(parser.parse_args()))


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def main() -> int:
    asked = options()
    asked.out.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in asdict(asked).items() if name in ("steps", "seed", "half")}
    training = begin(asked.seed, asked.device)
    resume(training, asked.out, settings)
    reals, labels = real_images()
    with storage.new_file(asked.out / "reals.npz") as partial, partial.open("wb") as file:
        np.savez_compressed(file, images=np.stack([storage.to_uint8(image) for image in reals.numpy()]), labels=labels)
    if train(training, reals, asked.out, settings, asked.half):
        say(f"done: {len(list(asked.out.glob('snapshot-*.safetensors')))} snapshots in {asked.out}")
        return 0
    return 130


if __name__ == "__main__":
    sys.exit(main())
