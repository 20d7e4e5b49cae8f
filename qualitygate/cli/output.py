"""What commands print: one result on the real stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qualitygate.generators.passes import Progress, Reporter
    from qualitygate.requests import WithTracking
    from qualitygate.tracking.sending import Parcel

Part = str | tuple[str, Sequence[str], Sequence[Sequence[object]]]
"""Of a result for people: a line, or a table as title, header and rows."""

_stdout: Any = None  # the real stdout, while everything else is sent to stderr
_as_json = False
_PLAIN_WIDTH = 120  # of tables that do not go to a terminal


@contextlib.contextmanager
def only_result_on_stdout(as_json: bool) -> Iterator[None]:
    """Sends whatever libraries print to stdout to stderr instead; a result still reaches the real one, ``as_json`` or for people."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    global _stdout, _as_json
    _as_json = as_json
    _stdout = os.fdopen(real, "w", encoding="utf8")
    try:
        yield
    finally:
        sys.stdout.flush()
        _stdout.flush()
        os.dup2(real, 1)
        _stdout.close()
        _stdout = None


def emit(text: str) -> None:
    """Print a result."""
    print(text, file=_stdout or sys.stdout, flush=True)


def result(document: Mapping[str, Any], shown: Iterable[Part]) -> None:
    """Print a result: the document for machines, or what is ``shown`` to people, which is made only then."""
    if _as_json:
        emit_json(document)
        return
    for part in shown:
        if isinstance(part, str):
            emit(part)
        else:
            _table(*part)


def emit_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document, without NaN; paths become text."""
    emit(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=os.fspath))


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title, title_justify="left", show_header=any(header))
    for name in header:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(format_value(value) for value in row))
    stream = _stdout or sys.stdout
    Console(file=stream, width=None if stream.isatty() else _PLAIN_WIDTH).print(grid)


def format_value(value: object) -> str:
    """Numbers are written the short way."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def say(message: str) -> None:
    """A message to the person at the terminal; not part of the result."""
    print(message, file=sys.stderr, flush=True)


def send(parcel: Parcel, request: WithTracking, kept: str) -> str | None:
    """Log to MLflow, and return the run's id; an outage costs nothing but a warning, which says what is ``kept``."""
    from qualitygate.errors import TrackingError
    from qualitygate.tracking import sending

    try:
        return sending.send(parcel, request.tracking_uri, request.experiment).run_id
    except TrackingError as error:
        say(f"warning: MLflow was not reached, {kept}: {error}")
        return None


def reporter() -> Reporter:
    """Progress bars where stderr is a terminal, silence elsewhere."""
    from rich import progress
    from rich.console import Console

    from qualitygate.generators.passes import Reporter

    class Terminal(Reporter):
        @contextlib.contextmanager
        def phase(self, name: str, total: int) -> Iterator[Progress]:
            columns = (progress.TextColumn("{task.description:18}"), progress.BarColumn(), progress.MofNCompleteColumn())
            times = (progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
            with progress.Progress(*columns, *times, console=Console(stderr=True)) as bars:
                task = bars.add_task(name, total=total)
                yield lambda done: bars.advance(task, done)

        @contextlib.contextmanager
        def download(self) -> Iterator[Callable[[int, int | None], None]]:
            columns = (progress.TextColumn("download"), progress.BarColumn(), progress.DownloadColumn())
            times = (progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
            with progress.Progress(*columns, *times, console=Console(stderr=True)) as bars:
                task = bars.add_task("download", total=None, visible=False)  # it appears with the first bytes
                yield lambda done, total: bars.update(task, completed=done, total=total, visible=True)

    return Terminal() if sys.stderr.isatty() else Reporter()
