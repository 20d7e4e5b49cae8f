"""Workers on GPUs: whoever is hired for a dead one gets its device. No GPU is needed to see which each was given."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qualitygate.errors import WorkerError
from qualitygate.generators import passes
from qualitygate.generators.passes import MICRO_BATCH
from qualitygate.produce import executor
from qualitygate.produce.executor import ATTEMPTS, ProcessPool, common_micro_batch
from qualitygate.produce.manifest import Shard


class Worker:
    """Dies at once on the first GPU, and waits on the second."""

    exitcode = -9

    def __init__(self, target: Any, args: Any, daemon: bool) -> None:
        pipe, _, self.device, threads = args
        devices.append(self.device)
        assert threads == 8  # half of the cores
        if self.device == "cuda:1":
            self.open = Connection(os.dup(pipe.fileno()))

    def start(self) -> None: ...
    def join(self, patience: float = 0.0) -> None: ...
    def terminate(self) -> None: ...
    def is_alive(self) -> bool:
        return False


devices: list[str] = []


def test_who_is_hired_for_a_dead_worker_gets_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Worker, set_forkserver_preload=lambda names: None)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(executor, "cores", lambda: 16)
    with ProcessPool(None, "cuda", 2) as pool, pytest.raises(WorkerError, match=f"{ATTEMPTS} workers died"):
        list(pool.work([Shard(0, 10), Shard(10, 20)]))
    assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:0"]


def test_all_workers_have_the_micro_batch_of_the_smallest_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = {0: 80 * 2**30, 1: 24 * 2**30, None: 40 * 2**30}
    cluster = SimpleNamespace(remote=lambda num_gpus: lambda ask: SimpleNamespace(remote=ask), get=lambda found: found)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(passes, "total_memory", lambda device: memory[device.index])
    monkeypatch.setattr(executor, "_ray", lambda: cluster)
    widest = 32 * 1024**2
    assert [common_micro_batch(widest, "cuda", workers) for workers in (1, 2, 3)] == [16, 8, 8]
    assert common_micro_batch(widest, "cuda:0", 2) == 16
    assert common_micro_batch(widest, "cuda", 2, ray=True) == 8
    assert common_micro_batch(widest, "cpu", 2) == common_micro_batch(widest, "cpu", 2, ray=True) == MICRO_BATCH
