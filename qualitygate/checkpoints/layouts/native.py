"""Our own safetensors: the tensors under our names, and family and settings in the metadata. Needs no recognition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout
from qualitygate.generators import families
from qualitygate.generators.base import Generator

METADATA_KEY = "qualitygate"


def metadata(module: Generator) -> dict[str, str]:
    """The metadata that `build` reads back."""
    return {
        METADATA_KEY: json.dumps({"format": 1, "family": module.family, "settings": module.settings}, sort_keys=True)
    }


def _build(group: TensorGroup) -> Built[Generator]:
    stored: Mapping[str, Any] | None = group.settings.get(METADATA_KEY)
    if stored is None:
        raise DoesNotFit("no metadata of our own")
    known = families.generators()
    if stored.get("format") != 1 or stored.get("family") not in known:
        raise DoesNotFit(
            f"written for family {stored.get('family')!r} in format {stored.get('format')!r}, which this version does not know"
        )
    with torch.device("meta"):
        module = known[stored["family"]](**stored["settings"])
    return Built(module, group.tensors)


LAYOUTS = (Layout("qualitygate safetensors", "any", "generator", (), _build),)
