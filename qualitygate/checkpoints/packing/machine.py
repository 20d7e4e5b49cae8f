"""A pickle machine that makes records instead of objects.

A pickle is a program for a small stack machine. Some of its instructions look up functions and call them. This machine
carries out the others and only writes those down, as `Call` records: whatever the file says, reading it cannot run
anything. The standard library's `pickletools`, which only reads, decodes the instructions; what the records mean is
decided in `values`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from qualitygate.checkpoints.packing.bounds import MAX_NAME, Budget, over_limit
from qualitygate.checkpoints.packing.hostile import refuse_hostile, unsafe
from qualitygate.checkpoints.packing.records import Call, Damaged, Global, Persistent

_VIEW_FROM = 4096  # byte strings from this size on stay views into the file
_KEY_BITS = 64  # larger integers could be chosen to collide as keys
_KEY_PARTS = 8


class _Stream:
    """The bytes of a pickle in the shape `pickletools` reads from. Long byte strings are views, not copies."""

    def __init__(self, source: memoryview, start: int) -> None:
        self.source, self.position = source, start

    def tell(self) -> int:
        return self.position

    def read(self, size: int) -> bytes | memoryview:
        part = self.source[self.position : self.position + size]
        self.position += len(part)
        return part if len(part) >= _VIEW_FROM else bytes(part)

    def readline(self) -> bytes:
        size = 256
        line = bytes(self.source[self.position : self.position + size])
        while (end := line.find(b"\n")) < 0 and len(line) == size:
            size *= 2
            line = bytes(self.source[self.position : self.position + size])
        line = line[: end + 1] if end >= 0 else line
        self.position += len(line)
        return line


class Machine:
    """Runs one pickle.

    Attributes:
        result: what the pickle stands for, in records.
        end: position after it.
        references: all references to storages, in the order of the file.

    Raises:
        Damaged: no pickle, or not whole.
        UnsafeCheckpointError: it names something that only an attack would.
        CheckpointError: it has more instructions than the budget.
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
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise Damaged(f"a pickle that breaks off or makes no sense near byte {stream.position:,}") from error
        self.end = stream.position

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def discard(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def tuple_of(self, size: int) -> None:
        values = [self.pop() for _ in range(size)]
        self.push(tuple(reversed(values)))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def find(self, module: Any, attribute: Any) -> Global:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise Damaged("a class whose name is not text")
        if len(module) + len(attribute) > MAX_NAME:
            raise over_limit("characters in the name of a class", MAX_NAME)
        refuse_hostile(module, attribute)
        return Global(f"{module}.{attribute}")

    def stack_global(self) -> None:
        attribute, module = self.pop(), self.pop()
        self.push(self.find(module, attribute))

    def call(self) -> None:
        args, function = self.pop(), self.pop()
        self.push(Call(function, args))

    def call_with_keywords(self) -> None:
        """No class that holds data to us is stored in this way, so the keywords are of no use."""
        self.pop()
        self.call()

    def instance(self, name: str) -> None:
        self.push(Call(self.find(*name.split(" ", 1)), tuple(self.since_mark())))

    def instance_of_first(self) -> None:
        function, *args = self.since_mark()
        self.push(Call(function, tuple(args)))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if not isinstance(target, Call):
            raise Damaged(f"a state for a {type(target).__name__}")
        target.state = state

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Call) else target
        if not isinstance(items, dict):
            raise Damaged(f"items for a {type(target).__name__}")
        items.update(_pairs(values))

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        elements = target.elements if isinstance(target, Call) else target
        if not isinstance(elements, list):
            raise Damaged(f"elements for a {type(target).__name__}")
        elements.extend(values)

    def refer(self, key: Any) -> None:
        """A storage; or, in old torch files of whole modules, a class, which comes with its source code."""
        if isinstance(key, tuple) and (named := [part for part in key[:2] if isinstance(part, Global)]) and key[0] != "storage":
            self.push(named[0])
        else:
            self.references.append(Persistent(key))
            self.push(self.references[-1])


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = values[::2]
    if not all(_is_key(key) or (isinstance(key, tuple) and len(key) <= _KEY_PARTS and all(map(_is_key, key))) for key in keys):
        raise Damaged("a key that is neither a short text nor a number")
    return dict(zip(keys, values[1::2], strict=True))


def _is_key(key: Any) -> bool:
    """Whether a value may be a key: cheap to hash, and not easily made to collide."""
    if isinstance(key, int):
        return key.bit_length() <= _KEY_BITS
    if isinstance(key, (str, bytes)):
        return len(key) <= MAX_NAME
    return key is None or isinstance(key, (float, Global, Call))


def _extension(machine: Machine, code: Any) -> None:
    raise unsafe(f"number {code} of the opening program's copyreg extensions")


def _pushing(make: Callable[[], Any]) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.push(make())


def _acting(act: Callable[[Machine], Any]) -> Callable[[Machine, Any], None]:
    return lambda machine, _: act(machine)


_LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_INSTRUCTIONS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(_LITERALS, Machine.push),
    # framing and versions mean nothing to a reader that has the whole file
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    "NONE": _pushing(lambda: None),
    "NEWTRUE": _pushing(lambda: True),
    "NEWFALSE": _pushing(lambda: False),
    "EMPTY_LIST": _pushing(list),
    "EMPTY_TUPLE": _pushing(tuple),
    "EMPTY_DICT": _pushing(dict),
    # sets become lists: their elements would have to be hashed
    "EMPTY_SET": _pushing(list),
    "FROZENSET": _acting(lambda machine: machine.push(machine.since_mark())),
    "LIST": _acting(lambda machine: machine.push(machine.since_mark())),
    "TUPLE": _acting(lambda machine: machine.push(tuple(machine.since_mark()))),
    "DICT": _acting(lambda machine: machine.push(_pairs(machine.since_mark()))),
    "TUPLE1": _acting(lambda machine: machine.tuple_of(1)),
    "TUPLE2": _acting(lambda machine: machine.tuple_of(2)),
    "TUPLE3": _acting(lambda machine: machine.tuple_of(3)),
    "APPEND": _acting(lambda machine: machine.extend([machine.pop()])),
    "APPENDS": _acting(lambda machine: machine.extend(machine.since_mark())),
    "ADDITEMS": _acting(lambda machine: machine.extend(machine.since_mark())),
    "SETITEM": _acting(lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1])),
    "SETITEMS": _acting(lambda machine: machine.set_items(machine.since_mark())),
    "MARK": _acting(Machine.mark),
    "POP": _acting(Machine.discard),
    "POP_MARK": _acting(Machine.since_mark),
    "DUP": _acting(lambda machine: machine.push(machine.stack[-1])),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.put),
    "MEMOIZE": _acting(lambda machine: machine.put(len(machine.memo))),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.push(machine.memo[index])),
    "GLOBAL": lambda machine, name: machine.push(machine.find(*name.split(" ", 1))),
    "STACK_GLOBAL": _acting(Machine.stack_global),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _acting(Machine.call)),
    "NEWOBJ_EX": _acting(Machine.call_with_keywords),
    "INST": Machine.instance,
    "OBJ": _acting(Machine.instance_of_first),
    "BUILD": _acting(Machine.build),
    "PERSID": Machine.refer,
    "BINPERSID": _acting(lambda machine: machine.refer(machine.pop())),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
}
