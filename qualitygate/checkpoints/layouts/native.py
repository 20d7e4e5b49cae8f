"""Our own safetensors: the tensors under our names, and family and settings in the metadata. Needs no recognition.

The metadata has one key, ``qualitygate``, with a JSON object: ``format``, ``family`` and ``settings`` of the generator, and
``discriminator`` with the same of the discriminator if the file has one. Its tensors then begin with ``discriminator.``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import ANY_FAMILY, Built, DoesNotFit, Layout
from qualitygate.generators.base import Discriminator, Generator
from qualitygate.generators.families import DISCRIMINATORS, GENERATORS

METADATA_KEY = "qualitygate"
DISCRIMINATOR = "discriminator"
FORMAT = 1


def metadata(generator: Generator, discriminator: Discriminator | None = None) -> dict[str, str]:
    """The metadata that `networks` reads back."""
    document = {"format": FORMAT, **_described(generator)}
    if discriminator is not None:
        document[DISCRIMINATOR] = _described(discriminator)
    return {METADATA_KEY: json.dumps(document, sort_keys=True)}


def tensors(generator: Generator, discriminator: Discriminator | None = None) -> dict[str, Tensor]:
    """The tensors of such a file, by their names in it."""
    own = dict(generator.state_dict())
    if discriminator is not None:
        own |= {f"{DISCRIMINATOR}.{name}": tensor for name, tensor in discriminator.state_dict().items()}
    return own


def networks(stored: Mapping[str, Tensor], document: Any) -> dict[str, TensorGroup] | TensorGroup:
    """The networks in such a file: one group, or two where the generator has a discriminator beside it."""
    if not isinstance(document, Mapping) or not isinstance(document.get(DISCRIMINATOR), Mapping):
        return TensorGroup("", stored, {METADATA_KEY: document})
    prefix = f"{DISCRIMINATOR}."
    judge = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
    own = {name: tensor for name, tensor in stored.items() if not name.startswith(prefix)}
    about_judge = {"format": document.get("format"), "role": DISCRIMINATOR, **document[DISCRIMINATOR]}
    return {"generator": TensorGroup("", own, {METADATA_KEY: document}), DISCRIMINATOR: TensorGroup("", judge, {METADATA_KEY: about_judge})}


def _described(network: Generator | Discriminator) -> dict[str, Any]:
    return {"family": network.stored_as, "settings": network.settings}


def _generator(group: TensorGroup) -> Built[Generator]:
    return _built(group, "generator", GENERATORS)


def _discriminator(group: TensorGroup) -> Built[Discriminator]:
    return _built(group, DISCRIMINATOR, DISCRIMINATORS)


def _built(group: TensorGroup, role: str, known: Mapping[str, type[Any]]) -> Built[Any]:
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
GENERATOR = Layout(_NAME, ANY_FAMILY, "generator", (), _generator)
LAYOUTS = (GENERATOR, Layout(_NAME, ANY_FAMILY, DISCRIMINATOR, (), _discriminator))
