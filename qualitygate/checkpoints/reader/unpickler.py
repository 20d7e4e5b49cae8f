"""The standard library's unpickler with nothing to call: functions and classes are names, calls are records.

A pickle is a program for a small stack machine. Some of its instructions look up functions and call them; here these only write that
down. What the records mean is decided in `values`.

It is the unpickler in Python, ``pickle._Unpickler``, that is made inert. The one in C cannot be held within bounds, as it lets nobody
look at single instructions: it hashes keys as it meets them (deeply nested tuples overrun the stack, and the process ends; chosen ones
collide, and it takes hours), makes room for a memo by the largest index in the file, takes functions out of the opening program's
``copyreg`` cache, needs real classes where the file makes objects, copies a shared tuple of arguments for every call, and copies the
bytes of every tensor, which stay views of the file here.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qualitygate.checkpoints.bounds import COPIES, INSTRUCTIONS, MAX_LINE, MAX_NAME, TUPLE_KEYS, Budget, Damaged, over_limit
from qualitygate.errors import QualityGateError, UnsafeCheckpointError

VIEW_FROM = 4096  # byte strings from this size on stay views into the file
_KEY_BITS = 64  # larger integers could be chosen to collide as keys
_KEY_PARTS = 8


@dataclass(slots=True, eq=False)
class Global:
    """The name of a class or function. Only the name: it is never looked up."""

    name: str


@dataclass(slots=True, eq=False)
class Call:
    """An object that the file wants made by calling ``function``; what it wants put into the object is kept apart."""

    function: Any
    args: Any
    state: Any = None
    items: dict[Any, Any] | None = None
    elements: list[Any] | None = None

    @property
    def name(self) -> str:
        """Name of the function; ``"?"`` where the file has something else in its place."""
        return self.function.name if isinstance(self.function, Global) else "?"


@dataclass(slots=True, eq=False)
class Persistent:
    """A reference to something beside the pickle: the storage of a tensor."""

    key: Any


class InertUnpickler(pickle._Unpickler):
    """Reads the pickle that begins at ``start``.

    After `load`, ``references`` are those to storages, in the order of the file, and ``window.position`` is where it ends.
    """

    stack: list[Any]
    read: Callable[[int], Any]
    readline: Callable[[], bytes]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]]

    def __init__(self, source: memoryview, start: int, budget: Budget) -> None:
        self.window, self._budget = _Window(source, start), budget
        self.references: list[Persistent] = []
        super().__init__(self.window)  # type: ignore[arg-type]  # long byte strings come as views

    def load(self) -> Any:
        """What the pickle stands for, in records."""
        try:
            return super().load()
        except (QualityGateError, Damaged):
            raise
        except Exception as error:  # whatever instructions in an order that makes no sense lead to
            raise Damaged(f"a pickle that breaks off or makes no sense near byte {self.window.position:,}") from error

    def find_class(self, module: Any, name: Any) -> Any:
        if len(module) + len(name) > MAX_NAME:
            raise over_limit("characters in the name of a class", MAX_NAME)
        _refuse_hostile(module, name)
        return Global(f"{module}.{name}")

    def get_extension(self, code: int) -> None:
        raise _unsafe(f"number {code} of the opening program's copyreg extensions")

    def persistent_load(self, key: Any) -> Global | Persistent:
        """A storage; or, in old torch files of whole modules, a class, which comes with its source code."""
        if isinstance(key, tuple) and (named := [part for part in key[:2] if isinstance(part, Global)]) and key[0] != "storage":
            return named[0]
        self.references.append(Persistent(key))
        return self.references[-1]

    def _instantiate(self, function: Any, args: list[Any]) -> None:
        self._push(Call(function, tuple(args)))

    def _decode_string(self, value: bytes) -> str:
        return str(value, "latin-1")

    def _push(self, value: Any) -> None:
        self.stack.append(value)  # the stack that is there once the value is made, not the one above a mark

    def _call(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = Call(self.stack[-1], args)

    def _call_with_keywords(self) -> None:
        """No class that holds data to us is stored in this way, so the keywords are of no use."""
        self.stack.pop()
        self._call()

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Call):
            raise Damaged(f"a state for a {type(target).__name__}")
        target.state = state

    def _set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Call):
            target.items = {} if target.items is None else target.items
            target = target.items
        if not isinstance(target, dict):
            raise Damaged(f"items for a {type(target).__name__}")
        target.update(self._pairs(values))

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Call):
            target.elements = [] if target.elements is None else target.elements
            target = target.elements
        if not isinstance(target, list):
            raise Damaged(f"elements for a {type(target).__name__}")
        target.extend(values)

    def _pairs(self, values: list[Any]) -> dict[Any, Any]:
        for key in values[::2]:
            if isinstance(key, tuple):
                self._budget.take(TUPLE_KEYS)
            if not all(map(_is_key, key if isinstance(key, tuple) and len(key) <= _KEY_PARTS else (key,))):
                raise Damaged("a key that is neither a short text nor a number")
        return dict(zip(values[::2], values[1::2], strict=True))

    def _size(self, layout: str) -> int:
        return struct.unpack(layout, self.read(struct.calcsize(layout)))[0]

    def _text(self, layout: str) -> None:
        data = self.read(size := self._size(layout))
        if size >= VIEW_FROM:
            # four bytes a character as soon as one does not fit into a single one
            self._budget.take(COPIES, size * (4 if np.frombuffer(data, np.uint8).max() > 0xC3 else 1))
        self._push(str(data, "utf-8", "surrogatepass"))

    def _text_line(self) -> None:
        line = self.readline()[:-1]
        if len(line) >= VIEW_FROM:
            self._budget.take(COPIES, len(line) * (4 if re.search(rb"\\U|\\u(?!00)", line) else 1))
        self._push(str(line, "raw-unicode-escape"))


class _Window:
    """The bytes of a file as the unpickler wants to read them. Long byte strings are views, not copies."""

    def __init__(self, source: memoryview, start: int) -> None:
        self._source, self.position = source, start

    def read(self, size: int) -> bytes | memoryview:
        part = self._source[self.position : self.position + size]
        if len(part) < size:
            raise EOFError
        self.position += size
        return part if size >= VIEW_FROM else bytes(part)

    def readline(self) -> bytes:
        size = 256
        while True:
            line = bytes(self._source[self.position : self.position + size])
            if (end := line.find(b"\n") + 1) or len(line) < size:
                self.position += end
                return line[:end]
            if size > MAX_LINE:
                raise over_limit("bytes in one line", MAX_LINE)
            size *= 2


def _is_key(key: Any) -> bool:
    """Whether a value may be a key: cheap to hash, and not easily made to collide."""
    if isinstance(key, int):
        return key.bit_length() <= _KEY_BITS
    if isinstance(key, (str, bytes)):
        return len(key) <= MAX_NAME
    return key is None or isinstance(key, (float, Global, Call))


def _counted(action: Callable[[Any], None]) -> Callable[[Any], None]:
    def step(reader: InertUnpickler) -> None:
        reader._budget.take(INSTRUCTIONS)
        action(reader)

    return step


_INERT: dict[bytes, Callable[[InertUnpickler], Any]] = {
    pickle.REDUCE: InertUnpickler._call,
    pickle.NEWOBJ: InertUnpickler._call,
    pickle.NEWOBJ_EX: InertUnpickler._call_with_keywords,
    pickle.BUILD: InertUnpickler._build,
    pickle.SETITEM: lambda reader: reader._set_items([reader.stack.pop(), reader.stack.pop()][::-1]),
    pickle.SETITEMS: lambda reader: reader._set_items(reader.pop_mark()),
    pickle.DICT: lambda reader: reader._push(reader._pairs(reader.pop_mark())),
    pickle.APPEND: lambda reader: reader._extend([reader.stack.pop()]),
    pickle.APPENDS: lambda reader: reader._extend(reader.pop_mark()),
    # sets become lists: their elements would have to be hashed
    pickle.EMPTY_SET: lambda reader: reader._push([]),
    pickle.FROZENSET: lambda reader: reader._push(reader.pop_mark()),
    pickle.ADDITEMS: lambda reader: reader._extend(reader.pop_mark()),
    pickle.UNICODE: InertUnpickler._text_line,
    pickle.BINUNICODE: lambda reader: reader._text("<I"),
    pickle.BINUNICODE8: lambda reader: reader._text("<Q"),
    pickle.BYTEARRAY8: lambda reader: reader._push(reader.read(reader._size("<Q"))),
    # framing means nothing to a reader that has the whole file
    pickle.FRAME: lambda reader: reader.read(8),
}
_ACTIONS = pickle._Unpickler.dispatch | {code[0]: action for code, action in _INERT.items()}
InertUnpickler.dispatch = {
    code: _counted(action) for code, action in _ACTIONS.items() if code not in (pickle.NEXT_BUFFER[0], pickle.READONLY_BUFFER[0])
}


# What no checkpoint needs and attacks do. Nothing in a file is ever called, so none of it could do harm here. It is refused all the
# same, and by name: whoever packed such a file meant it to run code, and the next program to open it may not be as careful.
_HOSTILE = frozenset(
    (
        # the system, other processes, other machines
        *("os", "posix", "nt", "posixpath", "ntpath", "sys", "subprocess", "_posixsubprocess", "commands", "popen2", "pty"),
        *("shutil", "tempfile", "pathlib", "io", "_io", "mmap", "fcntl", "resource", "signal", "platform", "webbrowser"),
        *("socket", "_socket", "socketserver", "ssl", "http", "urllib", "urllib2", "xmlrpc", "ftplib", "smtplib", "telnetlib"),
        *("requests", "httpx", "aiohttp", "multiprocessing", "threading", "_thread", "concurrent", "asyncio"),
        # code, and ways to come by it
        *("builtins", "__builtin__", "importlib", "_frozen_importlib", "_frozen_importlib_external", "imp", "pkgutil"),
        *("runpy", "zipimport", "code", "codeop", "marshal", "inspect", "gc", "atexit", "operator", "_operator", "ctypes"),
        *("_ctypes", "cffi", "site", "venv", "ensurepip", "pip", "setuptools", "distutils", "idlelib", "lib2to3"),
        *("pdb", "bdb", "profile", "cProfile", "timeit", "trace", "doctest", "linecache"),
        # pickles inside pickles, past this reader
        *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"),
    )
)
_HOSTILE_FUNCTIONS = (
    *("torch.load", "torch.serialization.load", "torch.hub.", "torch.package.", "torch.utils.cpp_extension."),
    *("torch.utils.bottleneck.", "torch._dynamo.", "torch._inductor.", "numpy.load", "numpy.fromfile", "numpy.memmap"),
    *("numpy.testing.", "numpy.f2py.", "numpy.distutils.", "types.CodeType", "types.FunctionType", "logging.config."),
)
_DATA = frozenset(
    (
        *("bool", "int", "long", "float", "complex", "str", "unicode", "bytes", "bytearray", "object", "range", "slice"),
        *("list", "tuple", "dict", "set", "frozenset"),
        *("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    )
)
"""What the modules ``builtins`` and ``pathlib`` have to offer that only holds data."""


def _refuse_hostile(module: str, name: str) -> None:
    """A dotted name is a walk through modules: each step is looked at."""
    root = module.split(".")[0]
    if root in ("builtins", "__builtin__", "pathlib") and name in _DATA:
        return
    if {root, *name.split(".")[:-1]} & _HOSTILE or f"{module}.{name}".startswith(_HOSTILE_FUNCTIONS):
        raise _unsafe(f"{module}.{name}")


def _unsafe(name: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        "The checkpoint would run code when it is opened",
        f"a reference to {ascii(name[:120])[1:-1]}",
        "weights and settings only; nothing of the file was run",
        "do not open it with other programs; ask where it comes from for a safetensors file",
    )
