"""A pickle machine that makes records instead of objects.

A pickle is a program for a small stack machine; some of its instructions look up and call functions. This machine carries out the others and writes those down
as `Call` records, so that reading a file cannot run anything, whatever the file says. The instructions themselves are decoded by the standard
library's `pickletools`, which only reads. What the records mean is decided in `values.py`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from qualitygate.checkpoints.packing.bounds import MAX_TEXT, Budget
from qualitygate.checkpoints.packing.hostile import refuse_hostile, unsafe
from qualitygate.checkpoints.packing.records import Call, Damaged, Global, Persistent

_VIEW_FROM = 4096  # bytes strings from this size on stay views into the file
_KEY_BITS = 64  # larger integers as keys could be chosen to collide
_KEY_LENGTH = 16


class _Stream:
    """The bytes of a pickle, as `pickletools` wants to read them. Long byte strings are views, not copies."""

    def __init__(self, source: memoryview, start: int) -> None:
        self.source, self.position = source, start

    def read(self, size: int) -> bytes | memoryview:
        part = self.source[self.position : self.position + size]
        self.position += len(part)
        return part if len(part) >= _VIEW_FROM else bytes(part)

    def readline(self) -> bytes:
        # only texts are read by lines
        window = bytes(self.source[self.position : self.position + 256])
        end = window.find(b"\n")
        if end < 0:
            window = bytes(self.source[self.position : self.position + MAX_TEXT])
            end = window.find(b"\n")
        line = window[: end + 1] if end >= 0 else window
        self.position += len(line)
        return line

    def tell(self) -> int:
        return self.position


class Machine:
    """Runs one pickle.

    Attributes:
        result: what the pickle stands for, in records.
        end: position after it.
        references: all references to storages, in the order of the file.
    """

    def __init__(self, source: memoryview, start: int, budget: Budget) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.references: list[Persistent] = []
        stream = _Stream(source, start)
        try:
            for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
                budget.take_instruction()
                if opcode.name == "STOP":
                    break
                _INSTRUCTIONS[opcode.name](self, argument)
            self.result = self.stack.pop()
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            raise Damaged(f"not a pickle, or cut off, near byte {stream.position:,}") from error
        self.end = stream.position

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def put(self, index: int) -> None:
        self.memo[int(index)] = self.stack[-1]

    def make(self, function: Any, args: Any, keywords: Any = None) -> None:
        self.push(Call(function, args, keywords))

    def reduce(self, _: Any) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.make(function, args)

    def new_with_keywords(self, _: Any) -> None:
        keywords, args, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.make(function, args, keywords)

    def inst(self, name: str) -> None:
        self.make(_global(*name.split(" ", 1)), tuple(self.since_mark()))

    def obj(self, _: Any) -> None:
        function, *args = self.since_mark()
        self.make(function, tuple(args))

    def stack_global(self, _: Any) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        self.push(_global(module, attribute))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Call):
            target.state = state
        else:
            raise Damaged(f"a state for a {type(target).__name__}")

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Call) else target
        if not isinstance(items, dict):
            raise Damaged(f"items for a {type(target).__name__}")
        items.update(_pairs(values))

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        elements = target.elements if isinstance(target, Call) else target
        if not isinstance(elements, list):
            raise Damaged(f"elements for a {type(target).__name__}")
        elements.extend(values)

    def refer(self, key: Any) -> None:
        if (
            isinstance(key, tuple)
            and (named := [part for part in key[:2] if isinstance(part, Global)])
            and key[0] != "storage"
        ):
            self.push(named[0])  # old torch files refer to the classes of whole modules in this way
        else:
            self.references.append(Persistent(key))
            self.push(self.references[-1])

    def tuple_of(self, size: int) -> None:
        if len(self.stack) < size:
            raise Damaged("a tuple of more values than there are")
        values = tuple(self.stack[-size:])
        del self.stack[-size:]
        self.push(values)


def _global(module: Any, attribute: Any) -> Global:
    if not isinstance(module, str) or not isinstance(attribute, str):
        raise Damaged("the name of a class that is not text")
    name = f"{module}.{attribute}"
    refuse_hostile(name)
    return Global(name)


def _pairs(values: list[Any]) -> dict[Any, Any]:
    if len(values) % 2:
        raise Damaged("a key without a value")
    keys = values[::2]
    if not all(_is_key(key) for key in keys):
        raise Damaged("a key that is neither text nor a number")
    return dict(zip(keys, values[1::2], strict=True))


def _is_key(key: Any) -> bool:
    """Whether a value may be a key: cheap to hash, and not easily made to collide."""
    if isinstance(key, int):
        return key.bit_length() <= _KEY_BITS
    if isinstance(key, tuple):
        return len(key) <= _KEY_LENGTH and all(_is_key(part) and not isinstance(part, tuple) for part in key)
    return key is None or isinstance(key, (str, bytes, float, Global, Call))


def _forbidden(machine: Machine, argument: Any) -> None:
    raise unsafe(f"entry {argument} of the running program's copyreg extension registry")


def _constant(make: Callable[[], Any]) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.push(make())


def _ignored(machine: Machine, _: Any) -> None:
    """Framing and protocol numbers: nothing to do for a reader that has the whole file."""


_LITERALS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT"
).split()

_INSTRUCTIONS: dict[str, Callable[[Machine, Any], None]] = {
    **{name: Machine.push for name in _LITERALS},
    "PROTO": _ignored,
    "FRAME": _ignored,
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_LIST": _constant(list),
    "EMPTY_TUPLE": _constant(tuple),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_SET": _constant(list),  # the tree has no sets: their elements would have to be hashed
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "FROZENSET": lambda machine, _: machine.push(machine.since_mark()),
    "DICT": lambda machine, _: machine.push(_pairs(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "MARK": Machine.mark,
    "POP": Machine.pop,
    "POP_MARK": lambda machine, _: (machine.since_mark(), None)[1],
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "PUT": Machine.put,
    "BINPUT": Machine.put,
    "LONG_BINPUT": Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "GET": lambda machine, index: machine.push(machine.memo[int(index)]),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "GLOBAL": lambda machine, name: machine.push(_global(*name.split(" ", 1))),
    "STACK_GLOBAL": Machine.stack_global,
    "REDUCE": Machine.reduce,
    "NEWOBJ": Machine.reduce,
    "NEWOBJ_EX": Machine.new_with_keywords,
    "INST": Machine.inst,
    "OBJ": Machine.obj,
    "BUILD": Machine.build,
    "PERSID": Machine.refer,
    "BINPERSID": lambda machine, _: machine.refer(machine.stack.pop()),
    "EXT1": _forbidden,
    "EXT2": _forbidden,
    "EXT4": _forbidden,
}
