"""Who makes the shards: this process, several of its own, or a Ray cluster. An executor takes shards and gives rows, in whatever order."""

from __future__ import annotations

import abc
import multiprocessing
import os
import pickle
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch

from qualitygate.errors import InputError, MissingExtraError, QualityGateError, WorkerError
from qualitygate.generators.passes import Progress, micro_batch_on, silent
from qualitygate.produce.manifest import Shard, ShardRow
from qualitygate.produce.shards import cores
from qualitygate.produce.worker import Job, OpenedSource, ShardWorker

ATTEMPTS = 3  # workers that may die on one shard before the run gives up
_PATIENCE = 10.0  # seconds for a worker to stop by itself
_PRELOADED = ["qualitygate.produce.worker"]


class Executor(AbstractContextManager["Executor"]):
    """Makes the shards of a job, whose source may be open already. Use as a context manager: after it, no worker works any more."""

    def __init__(self, job: Job, device: str, opened: OpenedSource | None = None) -> None:
        self.job, self.device, self._opened = job, device, opened

    @cached_property
    def source(self) -> OpenedSource:
        """In this process: for what is made once all shards are there."""
        return self.job.open(self.device, self._opened)

    @abc.abstractmethod
    def work(self, shards: Sequence[Shard], progress: Progress = silent) -> Iterator[ShardRow]:
        """Make these shards, and give their rows as they get done. Raises what a worker raised, and `WorkerError` where workers died."""

    def _made(self, row: ShardRow, progress: Progress) -> ShardRow:
        progress(row.samples if self.job.plan.accepted is None else row.kept)
        return row

    def __exit__(self, *_: object) -> None:
        return None


class InProcess(Executor):
    """This process alone."""

    @cached_property
    def _worker(self) -> ShardWorker:
        return ShardWorker(self.job, self.device, self.source)

    def work(self, shards: Sequence[Shard], progress: Progress = silent) -> Iterator[ShardRow]:
        return (self._worker(shard, progress) for shard in shards)


def devices_of(device: str, count: int) -> list[str]:
    """Of so many workers on this machine: on GPUs they are spread over those there are."""
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    return [f"cuda:{number % gpus}" if gpus else device for number in range(count)]


def common_micro_batch(widest: int, device: str, count: int, *, ray: bool = False) -> int:
    """Samples in one pass of all workers, of a generator whose widest layer has so many neurons: of unlike GPUs here the smallest decides,
    of a cluster's one that is asked."""
    if not ray:
        return min(micro_batch_on(torch.device(one), widest) for one in set(devices_of(device, count)))
    if not device.startswith("cuda"):
        return micro_batch_on(torch.device(device), widest)
    cluster = _ray()
    found: int = cluster.get(cluster.remote(num_gpus=1)(micro_batch_on).remote(torch.device(device), widest))
    return found


class ProcessPool(Executor):
    """So many processes on this machine; on GPUs they are spread over those there are. A worker that dies is replaced."""

    def __init__(self, job: Job, device: str, count: int) -> None:
        super().__init__(job, device)
        self._count = count
        self._devices = devices_of(device, count)  # for those that are to be hired
        self._processes: dict[Any, tuple[BaseProcess, str]] = {}  # and its device, by the pipe to each
        self._busy: dict[Any, Shard] = {}
        self._idle: list[Any] = []

    def work(self, shards: Sequence[Shard], progress: Progress = silent) -> Iterator[ShardRow]:
        waiting, deaths = deque(shards), Counter[Shard]()
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                pipe = self._idle.pop() if self._idle else self._spawn()
                self._busy[pipe] = waiting.popleft()
                with suppress(OSError):  # it died while idle: reading from it says so
                    pipe.send(self._busy[pipe])
            ready: list[Any] = connection.wait(list(self._busy))
            for pipe in ready:
                shard = self._busy.pop(pipe)
                try:
                    answer = pipe.recv()
                except (EOFError, OSError):  # it died
                    process, freed = self._processes.pop(pipe)
                    self._devices.append(freed)
                    process.join(_PATIENCE)
                    pipe.close()
                    deaths[shard] += 1
                    if deaths[shard] >= ATTEMPTS:
                        code = process.exitcode
                        raise WorkerError(
                            f"{ATTEMPTS} workers died one after the other on shard {shard.name}",
                            f"signal {-code}" if code is not None and code < 0 else f"exit code {code}",
                            "workers that live",
                            "see the system's log; if memory ran out: fewer --workers",
                        ) from None
                    waiting.appendleft(shard)
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                self._idle.append(pipe)
                yield self._made(answer, progress)

    def __exit__(self, *_: object) -> None:
        for process, _device in self._processes.values():
            process.terminate()
        for pipe, (process, device) in self._processes.items():
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
            self._devices.append(device)
        self._processes, self._busy, self._idle = {}, {}, []

    def _spawn(self) -> Any:
        context = multiprocessing.get_context("forkserver")  # imports once, starts workers in a moment, has seen no GPU
        context.set_forkserver_preload(_PRELOADED)
        ours, theirs = context.Pipe()
        device = self._devices.pop(0)
        threads = max(1, cores() // self._count)
        process = context.Process(target=_serve, args=(theirs, self.job, device, threads), daemon=True)
        process.start()
        theirs.close()  # so that its end is seen here
        self._processes[ours] = process, device
        return ours


def _serve(pipe: Any, job: Job, device: str, threads: int) -> None:
    """A worker's life: shards in, rows out, until the other end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the one that leads decides
    signal.signal(signal.SIGTERM, _stop)
    torch.set_num_threads(threads)
    try:
        worker = ShardWorker(job, device, threads=threads)
        while True:
            pipe.send(worker(pipe.recv()))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        answer = error
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # it cannot travel: what it says does
            answer = QualityGateError("A worker failed", f"{type(error).__name__}: {error}")
        pipe.send(answer)


def _stop(*_: object) -> None:
    """Unwind, so that what is half made is dropped."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)


def connect(device: str, workers: int | None) -> tuple[str, int]:
    """Join the cluster at ``RAY_ADDRESS``, or start one on this machine. Returns the device of the workers, and how many there are: by
    default one for each GPU, or each CPU, that the cluster has. `InputError` if it has fewer: Ray would wait for them for half an hour."""
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


class RayExecutor(Executor):
    """So many workers of a Ray cluster, each with a GPU or a CPU of its own. Ray starts those that die again. Checkpoint, profile and
    place must be the same from every node."""

    def __init__(self, job: Job, device: str, count: int, here: str) -> None:
        super().__init__(job, here)
        self._device, self._count = device, count

    def work(self, shards: Sequence[Shard], progress: Progress = silent) -> Iterator[ShardRow]:
        ray = _ray()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.raise_original_map_exception = True  # one wrapping less
        items = [{"start": shard.start, "stop": shard.stop} for shard in shards]
        rows = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            fn_constructor_args=(self.job, self._device, self._count),
            compute=ray.data.ActorPoolStrategy(size=min(self._count, len(items))),
            num_cpus=1,
            num_gpus=1 if self._device.startswith("cuda") else 0,
            batch_size=1,
        )
        try:
            for batch in rows.iter_batches(batch_size=1):
                yield self._made(ShardRow.model_validate_json(batch["row"][0]), progress)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, QualityGateError) else error from None


class _Actor:
    """A shard worker that takes and gives what Ray Data carries. It begins with its first shard: what goes wrong then is ours to tell."""

    def __init__(self, job: Job, device: str, count: int) -> None:
        self._job, self._device, self._count = job, device, count

    @cached_property
    def _worker(self) -> ShardWorker:
        ray = _ray()
        node = next(one for one in ray.nodes() if one["NodeID"] == ray.get_runtime_context().get_node_id())
        most = int(node["Resources"].get("GPU" if self._device.startswith("cuda") else "CPU", 1))  # workers that Ray puts here
        return ShardWorker(self._job, self._device, threads=max(1, cores() // max(1, min(most, self._count))))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (start,), (stop,) = batch["start"], batch["stop"]
        return {"row": np.array([self._worker(Shard(int(start), int(stop))).model_dump_json()], dtype=object)}


def _ray() -> Any:
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("A cluster needs Ray", str(error), "Ray Data", "pip install 'ray[data]'") from error
    return ray
