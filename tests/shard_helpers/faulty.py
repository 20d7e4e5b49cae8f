"""Generators with which something happens in mid-run; importable by worker processes."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qualitygate.checkpoints.load import load_generator
from qualitygate.generators.base import Generator, State
from qualitygate.generators.families.dcgan import DCGAN


def faulty(kind: type[Faulty], path: Path, mark: Path | None = None) -> partial[Generator]:
    """A function that makes such a generator of a checkpoint on a device."""
    return partial(_load, kind, path, mark)


def _load(kind: type[Faulty], path: Path, mark: Path | None, device: str) -> Generator:
    generator = load_generator(path, device)
    generator.__class__ = kind
    generator.mark = mark
    return generator


class Faulty(DCGAN):
    """``mark`` is a file that remembers, over all processes, that it happened already."""

    mark: Any = None

    def first(self) -> bool:
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class Killed(Faulty):
    """Its process is killed, once, when the second of a shard's batches of images is made."""

    batches = 0

    def finish(self, state: State) -> Tensor:
        self.batches += 1
        if self.batches == 2 and self.first():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().finish(state)


class AlwaysKilled(Faulty):
    def finish(self, state: State) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().finish(state)


class Swapped(Faulty):
    """Somebody puts another file in the checkpoint's place, once: ``mark`` with the ending ``.other``."""

    def finish(self, state: State) -> Tensor:
        if self.first():
            shutil.copy(self.mark.with_suffix(".other"), self.mark.with_suffix(".safetensors"))
        return super().finish(state)


class NotFinite(Faulty):
    """Samples with much activity in the first layer are NaN from the second one on."""

    def advance(self, state: State) -> State:
        after = super().advance(state)
        if state.layer != 0:
            return after
        activation = after.activation.clone()
        activation[state.activation.sum(dim=(1, 2, 3)) > THRESHOLD] = torch.nan
        return State(after.layer, activation, after.carry)


THRESHOLD = 95.0
