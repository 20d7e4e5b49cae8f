"""Plain pickles: the networks of NVIDIA's repositories, and dictionaries of tensors or arrays."""

from __future__ import annotations

from typing import Any

from qualitygate.checkpoints.contents import Contents, TensorGroup
from qualitygate.checkpoints.packing.bounds import Budget
from qualitygate.checkpoints.packing.machine import Machine
from qualitygate.checkpoints.packing.records import Opaque, Persistent
from qualitygate.checkpoints.packing.torch_file import nested_reader
from qualitygate.checkpoints.packing.values import Values

_TF_NETWORKS = ("G", "D", "Gs")  # generator, discriminator, generator averaged over training


def read_pickle(source: memoryview, budget: Budget) -> Contents:
    """The value of a plain pickle. A tuple of three TensorFlow-era networks is given as a dictionary with their names.

    Raises:
        Damaged: no pickle, cut off, or inconsistent.
        CheckpointError: beyond the limits, or hostile.
    """
    machine = Machine(source, 0, budget)
    values = Values(_unknown, nested_reader(budget), budget)
    tree = values.value(machine.result)
    if "tensorflow" in values.eras:
        return Contents("pickle (TensorFlow-era NVIDIA networks)", _named(tree))
    return Contents("pickle (NVIDIA networks)" if "persistence" in values.eras else "pickle", tree)


def _named(tree: Any) -> Any:
    is_triple = isinstance(tree, (tuple, list)) and len(tree) == len(_TF_NETWORKS)
    return dict(zip(_TF_NETWORKS, tree, strict=True)) if is_triple and isinstance(tree[0], TensorGroup) else tree


def _unknown(record: Persistent) -> Opaque:
    """A plain pickle has nothing beside it that it could refer to."""
    return Opaque("a reference to something beside the file")
