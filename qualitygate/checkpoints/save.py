"""Generator to file: our own safetensors, which any version reads without recognising anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from qualitygate import storage
from qualitygate.checkpoints.layouts import native
from qualitygate.errors import InputError, OutputError
from qualitygate.generators.base import Discriminator, Generator
from qualitygate.generators.families import DISCRIMINATORS, GENERATORS

_SUFFIX = ".safetensors"


def save_generator(
    generator: Generator, path: str | Path, *, discriminator: Discriminator | None = None, notes: Mapping[str, str] | None = None
) -> None:
    """Write a generator, and the discriminator that belongs to it, so that `load_generator` makes the same images bit for bit.

    The file appears when it is complete; it is not written over another one.

    Args:
        generator: of any family that is stored by its settings.
        path: of the file, ``….safetensors``.
        discriminator: kept in the same file; `load_checkpoint` gives it back.
        notes: text metadata of the file, such as ``{"kimg": "200"}`` for a snapshot of a training run.

    Raises:
        OutputError: there is a file already, or the name does not say what it is.
        InputError: a network that its settings cannot build again, as one made from any module.
        StorageError: no space, no permission.
    """
    path = Path(path)
    check_new(path)
    network: Generator | None = generator
    while network is not None:
        _check_known(network, GENERATORS)
        network = network.wrapped
    if discriminator is not None:
        _check_known(discriminator, DISCRIMINATORS)
    tensors = {name: tensor.contiguous() for name, tensor in native.tensors(generator, discriminator).items()}
    with storage.new_file(path) as partial:
        try:
            save_file(tensors, partial, {**(notes or {}), **native.metadata(generator, discriminator)})
        except SafetensorError as error:  # how that library says what the operating system says
            raise OSError(str(error)) from error


def _check_known(network: Generator | Discriminator, known: Mapping[str, type[Any]]) -> None:
    if known.get(network.stored_as) is not type(network):
        raise InputError(
            f"A network of family {network.stored_as!r} cannot be saved",
            f"a {type(network).__name__}",
            f"one of {', '.join(sorted(known))}",
            "save its own weights, and load it by its import path",
        )


def check_new(path: Path) -> None:
    """Whether a file of that name may be written; asked before anything long is done.

    Raises:
        OutputError: there is one already, or the name does not say what it is.
    """
    if path.suffix != _SUFFIX:
        raise OutputError(f"{path} would not say what it is", f"the suffix {path.suffix!r}", _SUFFIX, f"name it {path.stem}{_SUFFIX}")
    if path.exists() or path.is_symlink():
        raise OutputError(f"{path} exists already", "a file or folder", "a new name", "choose another name, or remove it first")
