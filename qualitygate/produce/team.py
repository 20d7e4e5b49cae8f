"""Who makes the shards: this process, or several of its own. A team takes shards and gives rows, in whatever order they get done."""

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
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Self

from qualitygate.errors import QualityGateError, WorkerError
from qualitygate.produce.manifest import Shard, ShardRow
from qualitygate.produce.worker import Order, ShardWorker

ATTEMPTS = 3
"""Workers that may die on one shard before the run gives up."""
_PATIENCE = 10.0  # seconds for a worker to stop by itself
_PRELOADED = ["pandas", "great_expectations", "qualitygate.produce.worker"]


class Team(abc.ABC):
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


class Alone(Team):
    """This process.

    Args:
        order: what to make.
        device: where passes run.
    """

    def __init__(self, order: Order, device: str) -> None:
        self._order, self._device = order, device
        self._worker: ShardWorker | None = None

    def work(self, shards: Sequence[Shard]) -> Iterator[ShardRow]:
        if self._worker is None:
            self._worker = ShardWorker(self._order, self._device)
        return map(self._worker, shards)


class Processes(Team):
    """Several processes on this machine; on GPUs they are spread over those there are. A worker that dies is replaced.

    Args:
        order: what to make.
        device: where passes run.
        count: of processes.
    """

    def __init__(self, order: Order, device: str, count: int) -> None:
        self._order, self._device, self._count = order, device, count
        self._busy: dict[Any, tuple[_Member, Shard]] = {}
        self._idle: list[_Member] = []
        self._hired = 0

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
        member = self._idle.pop() if self._idle else self._hire()
        self._busy[member.pipe] = member, shard
        with suppress(OSError):  # it died while idle: reading from it says so
            member.pipe.send(shard)

    def _hire(self) -> _Member:
        context = multiprocessing.get_context("forkserver")  # imports once, starts workers in a moment, has seen no GPU
        context.set_forkserver_preload(_PRELOADED)
        ours, theirs = context.Pipe()
        device, threads = _device(self._device, self._hired), max(1, (os.cpu_count() or 1) // self._count)
        self._hired += 1
        process = context.Process(target=_serve, args=(theirs, self._order, device, threads), daemon=True)
        process.start()
        theirs.close()  # so that its end is seen here
        return _Member(process, ours)


@dataclass(eq=False)
class _Member:
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


def _serve(pipe: Any, order: Order, device: str, threads: int) -> None:
    """A worker's life: shards in, rows out, until the other end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the one that leads decides
    signal.signal(signal.SIGTERM, _stop)
    import torch

    torch.set_num_threads(threads)
    try:
        worker = ShardWorker(order, device)
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
