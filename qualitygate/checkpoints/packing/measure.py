"""The size of what a pickle's records stand for, taken before anything is made of them."""

from __future__ import annotations

from typing import Any

from qualitygate.checkpoints.packing.bounds import MAX_DEPTH, MAX_VALUES, over_limit
from qualitygate.checkpoints.packing.records import Call


def check_size(root: Any) -> None:
    """Count the values below ``root`` as a walk would meet them, shared ones again and again, and how deep they go.

    Raises:
        CheckpointError: over `MAX_VALUES` or `MAX_DEPTH`.
    """
    _measure(root, 0, {})


def _measure(node: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Number of values at and below a node, and levels below it."""
    if not isinstance(node, (dict, list, tuple, Call)):
        return 1, 0
    if id(node) not in known:
        if depth > MAX_DEPTH:
            raise over_limit("containers inside one another", MAX_DEPTH)
        known[id(node)] = 1, 0  # while it is being measured: an object that holds itself is cut there
        parts = [_measure(part, depth + 1, known) for part in _parts(node)]
        known[id(node)] = 1 + sum(size for size, _ in parts), 1 + max((height for _, height in parts), default=0)
    size, height = known[id(node)]
    if size > MAX_VALUES:
        raise over_limit("values", MAX_VALUES)
    if height > MAX_DEPTH:
        raise over_limit("containers inside one another", MAX_DEPTH)
    return size, height


def _parts(node: Any) -> list[Any]:
    if isinstance(node, Call):
        return [node.args, node.state, *node.items.values(), *node.elements]
    return list(node.values() if isinstance(node, dict) else node)
