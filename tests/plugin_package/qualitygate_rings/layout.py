"""How rings are stored: ``ring.0``, ``ring.1``, … and ``paint``, each (outputs, inputs)."""

from __future__ import annotations

import torch

from qualitygate.checkpoints.contents import TensorGroup
from qualitygate.checkpoints.layout import Built, DoesNotFit, Layout
from qualitygate_rings.family import Rings


def _build(group: TensorGroup) -> Built[Rings]:
    count = sum(name.startswith("ring.") for name in group.tensors)
    names = [*(f"ring.{index}" for index in range(count)), "paint"]
    if set(names) != set(group.tensors):
        raise DoesNotFit(f"{', '.join(group.tensors)} are not rings from 0 on")
    with torch.device("meta"):
        generator = Rings(group.tensors["ring.0"].shape[1], [len(group.tensors[name]) for name in names[:-1]])
    return Built(generator, {f"weight.{i}": group.tensors[name][:, :, None, None] for i, name in enumerate(names)})


LAYOUT = Layout("rings state dict", "rings", "generator", (r"ring\.0", "paint"), _build)
