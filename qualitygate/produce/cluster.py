"""The same shard worker on a Ray cluster: Ray Data hands out ranges of ids and brings back rows. What makes a set exact is not here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from qualitygate.errors import InputError, MissingExtraError, QualityGateError
from qualitygate.produce.manifest import Shard, ShardRow
from qualitygate.produce.team import Team
from qualitygate.produce.worker import Order, ShardWorker

_MANNERS = {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def connect(device: str, workers: int | None) -> tuple[str, int]:
    """Join the cluster at ``RAY_ADDRESS``, or start one on this machine, and see whether it has what is asked for.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``: of the workers.
        workers: how many; default: one for each GPU, or each CPU, that the cluster has.

    Returns:
        The device and the number of workers.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: the cluster has fewer GPUs or CPUs. Ray itself would wait for them for half an hour.
    """
    ray = _ray()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
    there = ray.cluster_resources()
    if device == "auto":
        device = "cuda" if there.get("GPU") else "cpu"
    kind = "GPU" if device.startswith("cuda") else "CPU"
    found = int(there.get(kind, 0))
    needed = workers or max(1, found)
    if found < needed:
        raise InputError(
            f"The cluster does not have the {kind}s asked for",
            f"{found} {kind}s",
            f"{needed}, one for each worker",
            "ask for fewer --workers, for another --device, or add nodes first",
        )
    return device, needed


class RayTeam(Team):
    """Workers of a Ray cluster, each with a GPU or a CPU of its own. Ray starts those that die again.

    Args:
        order: what to make. Checkpoint, profile and place must be the same from every node.
        device: ``cpu`` or ``cuda``.
        count: of workers.
    """

    def __init__(self, order: Order, device: str, count: int) -> None:
        self._order, self._device, self._count = order, device, count

    def work(self, shards: Sequence[Shard]) -> Iterator[ShardRow]:
        ray = _ray()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.raise_original_map_exception = True  # one wrapping less
        items = [{"start": shard.start, "stop": shard.stop} for shard in shards]
        rows = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            fn_constructor_args=(self._order, self._device),
            compute=ray.data.ActorPoolStrategy(size=min(self._count, len(items))),
            num_cpus=1,
            num_gpus=1 if self._device.startswith("cuda") else 0,
            batch_size=1,
        )
        try:
            for batch in rows.iter_batches(batch_size=1):
                yield ShardRow.model_validate_json(batch["row"][0])
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, QualityGateError) else error from None


class _Actor:
    """A shard worker that takes and gives what Ray Data carries. It begins with its first shard: what goes wrong then is ours to tell."""

    def __init__(self, order: Order, device: str) -> None:
        self._begin = partial(ShardWorker, order, device)
        self._worker: ShardWorker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._worker = self._worker or self._begin()
        rows = [
            self._worker(Shard(int(start), int(stop))).model_dump_json() for start, stop in zip(batch["start"], batch["stop"], strict=True)
        ]
        return {"row": np.array(rows, dtype=object)}


def _ray() -> Any:
    for name, value in _MANNERS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("A cluster needs Ray", str(error), "Ray Data", "pip install 'ray[data]'") from error
    return ray
