"""Our own files: safetensors with the tensors under our names, and family and settings in the metadata. They need no recognition.

The metadata has one key, ``qualitygate``, with a JSON object: ``format``, ``family`` and ``settings`` of the generator, and
``discriminator`` with the same of the discriminator if the file has one. Its tensors then begin with ``discriminator.``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from qualitygate import storage
from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import ANY_FAMILY, Built, DoesNotFit, Layout
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
    whole = {name: tensor.contiguous() for name, tensor in tensors(generator, discriminator).items()}
    with storage.new_file(path) as partial:
        try:
            save_file(whole, partial, {**(notes or {}), **metadata(generator, discriminator)})
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
    """Raises `OutputError` where no file of that name may be written; asked before anything long is done."""
    if path.suffix != _SUFFIX:
        raise OutputError(f"{path} would not say what it is", f"the suffix {path.suffix!r}", _SUFFIX, f"name it {path.stem}{_SUFFIX}")
    if path.exists() or path.is_symlink():
        raise OutputError(f"{path} exists already", "a file or folder", "a new name", "choose another name, or remove it first")


METADATA_KEY = "qualitygate"
DISCRIMINATOR = "discriminator"
FORMAT = 1


def metadata(generator: Generator, discriminator: Discriminator | None = None) -> dict[str, str]:
    """The metadata that `networks` reads back."""
    document: dict[str, Any] = {"format": FORMAT, "family": generator.stored_as, "settings": generator.settings}
    if discriminator is not None:
        document[DISCRIMINATOR] = {"family": discriminator.stored_as, "settings": discriminator.settings}
    return {METADATA_KEY: json.dumps(document, sort_keys=True)}


def tensors(generator: Generator, discriminator: Discriminator | None = None) -> dict[str, Tensor]:
    """The tensors of such a file, by their names in it."""
    judged_by = {} if discriminator is None else discriminator.state_dict(prefix=f"{DISCRIMINATOR}.")
    return {**generator.state_dict(), **judged_by}


def networks(stored: Mapping[str, Tensor], document: Any) -> dict[str, TensorGroup] | TensorGroup:
    """The networks in such a file: one group, or two where the generator has a discriminator beside it."""
    if not isinstance(document, Mapping) or not isinstance(document.get(DISCRIMINATOR), Mapping):
        return TensorGroup("", stored, {METADATA_KEY: document})
    prefix = f"{DISCRIMINATOR}."
    judge = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
    own = {name: tensor for name, tensor in stored.items() if not name.startswith(prefix)}
    about_judge = {"format": document.get("format"), "role": DISCRIMINATOR, **document[DISCRIMINATOR]}
    return {"generator": TensorGroup("", own, {METADATA_KEY: document}), DISCRIMINATOR: TensorGroup("", judge, {METADATA_KEY: about_judge})}


def _build(group: TensorGroup, role: str, known: Mapping[str, type[Any]]) -> Built[Any]:
    stored = group.settings.get(METADATA_KEY)
    if not isinstance(stored, Mapping) or stored.get("role", "generator") != role:
        raise DoesNotFit("no metadata of our own")
    if stored.get("format") != FORMAT or stored.get("family") not in known:
        raise DoesNotFit(
            f"written for family {stored.get('family')!r} in format {stored.get('format')!r}, which this version does not know"
        )
    with torch.device("meta"):
        module = known[stored["family"]].from_settings(**stored["settings"])
    return Built(module, group.tensors)


_NAME = "qualitygate safetensors"
GENERATOR = Layout(_NAME, ANY_FAMILY, "generator", (), partial(_build, role="generator", known=GENERATORS))
LAYOUTS = (GENERATOR, Layout(_NAME, ANY_FAMILY, DISCRIMINATOR, (), partial(_build, role=DISCRIMINATOR, known=DISCRIMINATORS)))
