"""Candidates for a check: a DCGAN checkpoint with batch norms, and what could have happened to it on the way to the next version.

Most are the same state dict with one thing changed, saved as PyTorch users save it; the rest are a planted defect, a generator of
another family, and a file that was cut off. All are seeded.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import tensor_groups
from qualitygate.checkpoints.load import load_generator
from qualitygate.checkpoints.reader import read
from qualitygate.checkpoints.save import save_generator
from qualitygate.generators.families.pggan import PGGAN
from qualitygate.testing.planted import Defect, plant

State = Mapping[str, Tensor]
"""A state dict, in order of synthesis."""


@dataclass(frozen=True)
class Candidate:
    """A changed checkpoint.

    Attributes:
        name: short, the stem of its file.
        what: what was done to the champion, in words.
        harmed: whether its images are worse, so that a pass is a miss.
        write: makes it from the champion's file, as another file, whose path it returns; told a path without suffix.
    """

    name: str
    what: str
    harmed: bool
    write: Callable[[Path, Path], Path]


def candidates() -> tuple[Candidate, ...]:
    """All of them, the unharmed first."""
    return (
        Candidate("same", "the same file", False, _copied),
        _changed("noise-1", "1 % noise on all convolutions, relative to each tensor's deviation", False, _noisy(0.01)),
        _changed("noise-5", "5 % noise on all convolutions", False, _noisy(0.05)),
        _changed("noise-30", "30 % noise on all convolutions", True, _noisy(0.3)),
        _changed("zeroed", "a third of the units of layer 1 zeroed", True, _zeroed(1, 3)),
        _changed(
            "statistics",
            "batch-norm statistics of other data: means off by a tenth of a deviation, variances by a fifth",
            True,
            _other_statistics,
        ),
        _changed("kernel", "one tap of the image layer's 4×4 kernels ten times as strong: a grid of dots", True, _damaged_kernel),
        _changed("biases", "biases of the last batch norm shifted by 0.3: darker images", True, _shifted_biases),
        Candidate("planted-10", "ten units of layer 0 fire for 1 % of latents and paint a blob", True, planted(10)),
        Candidate("planted-1", "one unit of layer 0 does", True, planted(1)),
        Candidate("family", "a PGGAN with random weights", True, _of_another_family),
        Candidate("truncated", "the first half of the file", True, _truncated),
    )


def _changed(name: str, what: str, harmed: bool, change: Callable[[State], State]) -> Candidate:
    """A candidate with another state dict."""

    def write(champion: Path, place: Path) -> Path:
        group = tensor_groups(read(champion))[0]
        path = place.with_suffix(".pt")
        torch.save({"netG_state_dict": {name: one.clone() for name, one in change(group.tensors).items()}}, path)
        return path

    return Candidate(name, what, harmed, write)


def _copied(champion: Path, place: Path) -> Path:
    return Path(shutil.copyfile(champion, place.with_suffix(champion.suffix)))


def _truncated(champion: Path, place: Path) -> Path:
    path, content = place.with_suffix(champion.suffix), champion.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def planted(units: int, share: float = 0.01) -> Callable[[Path, Path], Path]:
    """Writes a champion some of whose units of layer 0 fire for a share of latents and paint a blob."""

    def write(champion: Path, place: Path) -> Path:
        path = place.with_suffix(".safetensors")
        save_generator(plant(load_generator(champion), Defect(layer=0, units=units, share=share)).generator, path)
        return path

    return write


def _of_another_family(champion: Path, place: Path) -> Path:
    """With latents and images of the champion's size, so that all that can be compared is."""
    like, path = load_generator(champion), place.with_suffix(".safetensors")
    doublings = (like.image_shape[1] // 4).bit_length() - 1
    generator = PGGAN(like.latent_size, [max(64 >> step // 2, 8) for step in range(2 * doublings + 2)], like.image_shape[0])
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.normal_(0.0, 0.3 * max(parameter[0].numel(), 1) ** -0.5, generator=random)
    save_generator(generator, path)
    return path


# changes of a state dict


def _noisy(share: float) -> Callable[[State], State]:
    def change(state: State) -> State:
        random = torch.Generator().manual_seed(0)
        return {
            name: one + share * one.std() * torch.randn(one.shape, generator=random) if one.ndim == 4 else one
            for name, one in state.items()
        }

    return change


def _zeroed(layer: int, part: int) -> Callable[[State], State]:
    """Every so many-th unit of a layer is 0 for all latents: neither scale nor bias is left of its batch norm."""

    def change(state: State) -> State:
        norm = list(_norms(state))[layer]
        silent = {name: state[name].clone() for name in (f"{norm}.weight", f"{norm}.bias")}
        for one in silent.values():
            one[::part] = 0.0
        return {**state, **silent}

    return change


def _other_statistics(state: State) -> State:
    moved = {}
    for norm in _norms(state):
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        moved |= {f"{norm}.running_mean": mean + 0.1 * variance.sqrt(), f"{norm}.running_var": 1.2 * variance}
    return {**state, **moved}


def _damaged_kernel(state: State) -> State:
    *_, last = (name for name, one in state.items() if one.ndim == 4)
    weight = state[last].clone()
    weight[:, :, 0, 0] *= 10.0
    return {**state, last: weight}


def _shifted_biases(state: State) -> State:
    *_, norm = _norms(state)
    return {**state, f"{norm}.bias": state[f"{norm}.bias"] + 0.3}


def _norms(state: State) -> Iterator[str]:
    suffix = ".running_mean"
    return (name.removesuffix(suffix) for name in state if name.endswith(suffix))
