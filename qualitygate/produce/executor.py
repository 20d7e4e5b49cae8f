"""Who makes the shards: this process, several of its own, or a Ray cluster. An executor takes shards and gives rows, in whatever order."""

from __future__ import annotations

import abc
import multiprocessing
import os
import pickle
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Self

import numpy as np

from qualitygate.errors import InputError, MissingExtraError, QualityGateError, WorkerError
from qualitygate.produce.manifest import Shard, ShardRow
from qualitygate.produce.worker import Job, ShardWorker

ATTEMPTS = 3
"""Workers that may die on one shard before the run gives up."""
_PATIENCE = 10.0  # seconds for a worker to stop by itself
_PRELOADED = ["pandas", "great_expectations", "qualitygate.produce.worker"]


class Executor(abc.ABC):
    """Workers. Use as a context manager: after it, none of them works any more."""

    @abc.abstractmethod
    def work(self, shards: Sequence[Shard]) -> Iterator[ShardRow]:
        """Make these shards.

        Raises:
            Whatever a worker raised; `WorkerError` where workers died.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class InProcess(Executor):
    """This process.

    Args:
        job: what to make.
        device: where passes run.
    """

    def __init__(self, job: Job, device: str) -> None:
        self._job, self._device = job, device
        self._worker: ShardWorker | None = None

    def work(self, shards: Sequence[Shard]) -> Iterator[ShardRow]:
        if self._worker is None:
            self._worker = ShardWorker(self._job, self._device)
        return map(self._worker, shards)


class ProcessPool(Executor):
    """Several processes on this machine; on GPUs they are spread over those there are. A worker that dies is replaced.

    Args:
        job: what to make.
        device: where passes run.
        count: of processes.
    """

    def __init__(self, job: Job, device: str, count: int) -> None:
        self._job, self._device, self._count = job, device, count
        self._busy: dict[Any, tuple[_Process, Shard]] = {}
        self._idle: list[_Process] = []
        self._spawned = 0

    def work(self, shards: Sequence[Shard]) -> Iterator[ShardRow]:
        waiting, deaths = deque(shards), Counter[Shard]()
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                self._assign(waiting.popleft())
            for ready in connection.wait(list(self._busy)):
                member, shard = self._busy.pop(ready)
                answer = member.answer()
                if answer is None:
                    deaths[shard] += 1
                    if deaths[shard] >= ATTEMPTS:
                        raise WorkerError(
                            f"{ATTEMPTS} workers died one after the other on shard {shard.name}",
                            member.ended(),
                            "workers that live",
                            "see the system's log; if memory ran out: fewer --workers",
                        )
                    waiting.appendleft(shard)
                    continue
                self._idle.append(member)
                yield answer

    def __exit__(self, *_: object) -> None:
        members = [*self._idle, *(member for member, _ in self._busy.values())]
        for member in members:
            member.process.terminate()
        for member in members:
            member.process.join(_PATIENCE)
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
            member.pipe.close()
        self._idle, self._busy = [], {}

    def _assign(self, shard: Shard) -> None:
        member = self._idle.pop() if self._idle else self._spawn()
        self._busy[member.pipe] = member, shard
        with suppress(OSError):  # it died while idle: reading from it says so
            member.pipe.send(shard)

    def _spawn(self) -> _Process:
        context = multiprocessing.get_context("forkserver")  # imports once, starts workers in a moment, has seen no GPU
        context.set_forkserver_preload(_PRELOADED)
        ours, theirs = context.Pipe()
        device, threads = _device(self._device, self._spawned), max(1, (os.cpu_count() or 1) // self._count)
        self._spawned += 1
        process = context.Process(target=_serve, args=(theirs, self._job, device, threads), daemon=True)
        process.start()
        theirs.close()  # so that its end is seen here
        return _Process(process, ours)


@dataclass(eq=False)
class _Process:
    """One process and the pipe to it."""

    process: BaseProcess
    pipe: Any

    def answer(self) -> ShardRow | None:
        """What it sent; None if it died. What it raised is raised here."""
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(_PATIENCE)
            self.pipe.close()
            return None
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, ShardRow)
        return answer

    def ended(self) -> str:
        code = self.process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _device(device: str, number: int) -> str:
    if device != "cuda":
        return device
    import torch

    return f"cuda:{number % torch.cuda.device_count()}"


def _serve(pipe: Any, job: Job, device: str, threads: int) -> None:
    """A worker's life: shards in, rows out, until the other end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the one that leads decides
    signal.signal(signal.SIGTERM, _stop)
    import torch

    torch.set_num_threads(threads)
    try:
        worker = ShardWorker(job, device)
        while True:
            pipe.send(worker(pipe.recv()))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        pipe.send(_portable(error))


def _stop(*_: object) -> None:
    """Unwind, so that what is half made is dropped."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)


def _portable(error: Exception) -> Exception:
    """The error, or what it says where it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return QualityGateError("A worker failed", f"{type(error).__name__}: {error}")
    return error


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


class RayExecutor(Executor):
    """Workers of a Ray cluster, each with a GPU or a CPU of its own. Ray starts those that die again.

    Args:
        job: what to make. Checkpoint, profile and place must be the same from every node.
        device: ``cpu`` or ``cuda``.
        count: of workers.
    """

    def __init__(self, job: Job, device: str, count: int) -> None:
        self._job, self._device, self._count = job, device, count

    def work(self, shards: Sequence[Shard]) -> Iterator[ShardRow]:
        ray = _ray()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.raise_original_map_exception = True  # one wrapping less
        items = [{"start": shard.start, "stop": shard.stop} for shard in shards]
        rows = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            fn_constructor_args=(self._job, self._device),
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

    def __init__(self, job: Job, device: str) -> None:
        self._begin = partial(ShardWorker, job, device)
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
