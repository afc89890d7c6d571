"""Read the data in a pickle without executing code in it.

This module interprets the opcodes itself, on plain values only. A global of the pickle becomes a ``Marker``, never the
Python object of that name. Calling a marker calls the stand-in on the caller's allow-list; without one it is an error.
Nothing is imported, no attribute of a foreign object is read or set, and no method of one is called.
"""

from __future__ import annotations

import pickletools
import struct
import warnings
from collections.abc import Callable, Mapping
from typing import IO, Any

from mystudio.errors import BadCheckpoint, UnsafeCheckpoint
from mystudio.stylegan2.stand_ins import Buildable, Fields, Marker, quoted

#: limit of opcodes in all pickles of one file together; an official checkpoint with three networks has about 1e5
MAX_STEPS = 4_000_000
_MAX_INT = 1 << 128
_KEY_TYPES = (str, bytes, int, bool, type(None))  # hashing a deeply nested tuple would overflow the C stack


class Budget:
    """Opcodes that one file may still use; nested pickles share the budget."""

    def __init__(self, steps: int = MAX_STEPS):
        self.left = steps

    def spend(self, steps: int = 1) -> None:
        self.left -= steps
        if self.left < 0:
            raise BadCheckpoint(
                f"expected at most {MAX_STEPS} steps in a checkpoint's pickle, got more; "
                "this is no StyleGAN2 checkpoint"
            )


def read_pickle(
    stream: IO[bytes],
    allowed: Mapping[str, Callable | None],
    budget: Budget,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Interpret one pickle at the position of ``stream`` and return its value.

    Args:
        stream: seekable bytes; on return its position is the end of the pickle.
        allowed: "module name" -> the stand-in that is called with the pickled arguments; None = the pickle may name it
            but not call it.
        budget: opcodes that the file may still use.
        persistent: converts a persistent id to its object; None = persistent ids are an error.

    Raises:
        UnsafeCheckpoint: the pickle names a global that is not on the list, or uses an opcode that only code needs.
        BadCheckpoint: the pickle is damaged, truncated or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a damaged text may contain invalid escapes
            return _Machine(allowed, budget, persistent).run(stream)
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        struct.error,
        EOFError,
        RecursionError,
        MemoryError,
    ) as error:
        raise BadCheckpoint(
            "expected a complete pickle in the checkpoint, got a damaged or truncated one "
            f"({type(error).__name__}); fetch the file again"
        ) from error


class _Machine:
    def __init__(self, allowed, budget, persistent):
        self.allowed, self.budget, self.persistent = allowed, budget, persistent
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: IO[bytes]) -> Any:
        for opcode, argument, _ in pickletools.genops(stream):  # raises if the stream ends before STOP
            self.budget.spend()
            if opcode.name != "STOP":
                self.step(opcode.name, argument)
        if len(self.stack) != 1 or self.marks:
            raise BadCheckpoint("expected one value in the checkpoint's pickle, got a damaged one; fetch it again")
        return self.stack[0]

    def step(self, name: str, argument: Any) -> None:
        if name in _SILENT:
            return
        if name in _LITERALS:
            self.literal(argument)
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        elif name in _CODE_ONLY:
            raise UnsafeCheckpoint(
                f"the checkpoint uses the pickle opcode {name}, which only code needs: refused, and "
                "nothing in it was executed; get the weights from a source you trust"
            )
        else:
            raise BadCheckpoint(f"expected a StyleGAN2 checkpoint, got a pickle with the opcode {name}")

    def literal(self, value: Any) -> None:
        if isinstance(value, int) and abs(value) >= _MAX_INT:
            raise BadCheckpoint("expected numbers of at most 128 bits in the checkpoint, got a larger one")
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise IndexError("stack underflow")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise IndexError("stack underflow")
        return self.stack[-1]

    def pop_to_mark(self) -> list:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def mark(self, _):
        self.marks.append(len(self.stack))

    def pop_one(self, _):
        if self.marks and len(self.stack) == self.marks[-1]:
            self.marks.pop()
        else:
            self.pop()

    def collect(self, make: Callable) -> None:
        self.stack.append(make(self.pop_to_mark()))

    def tuple_of(self, count: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def append(self, items: list) -> None:
        target = self.top()
        if type(target) is not list:
            raise TypeError("append to something else than a list")
        target.extend(items)

    def set_items(self, items: list) -> None:
        target = self.top()
        if type(target) not in (dict, Fields):
            raise TypeError("items for something else than a dictionary")
        target.update(_pairs(items))

    def add_items(self, _):
        items = self.pop_to_mark()
        target = self.top()
        if type(target) is not set:
            raise TypeError("members for something else than a set")
        target.update(_keys(items))

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.top()

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def named(self, name: str) -> None:
        if name not in self.allowed:
            raise UnsafeCheckpoint(
                f"the checkpoint refers to {quoted(name.replace(' ', '.'))}, which is not on the "
                "allow-list of weights and shapes: refused, and nothing in it was executed; " + _hint(name)
            )
        self.stack.append(Marker(name))

    def stack_global(self, _):
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a global whose name is no text")
        self.named(f"{module} {name}")

    def call(self, keywords: bool) -> None:
        if keywords and self.pop() != {}:
            raise BadCheckpoint("expected a StyleGAN2 checkpoint, got a pickle that builds objects with keywords")
        arguments, target = self.pop(), self.pop()
        if type(arguments) is not tuple:
            raise TypeError("arguments that are no tuple")
        stand_in = self.allowed[target.name] if type(target) is Marker else None
        if stand_in is None:
            what = target.name.replace(" ", ".") if type(target) is Marker else type(target).__name__
            raise UnsafeCheckpoint(
                f"the checkpoint calls {quoted(what)}, which may not be called: refused, and "
                "nothing in it was executed; get the weights from a source you trust"
            )
        self.stack.append(stand_in(*arguments))

    def build(self, _):
        state, target = self.pop(), self.top()
        if not isinstance(target, Buildable):
            what = target.name.replace(" ", ".") if type(target) is Marker else type(target).__name__
            raise UnsafeCheckpoint(
                f"the checkpoint sets attributes of {quoted(what)}, which has none to set: refused, "
                "and nothing in it was executed; get the weights from a source you trust"
            )
        target.build(state)

    def persistent_id(self, identity: Any) -> None:
        if self.persistent is None:
            raise UnsafeCheckpoint(
                "the checkpoint refers to an outside object by a persistent id: refused, and nothing "
                "in it was executed; get the weights from a source you trust"
            )
        self.stack.append(self.persistent(identity))


def _keys(items: list) -> list:
    for key in items:
        if type(key) not in _KEY_TYPES:
            raise BadCheckpoint(f"expected texts and numbers as keys in the checkpoint, got {type(key).__name__}")
    return items


def _pairs(items: list) -> zip:
    if len(items) % 2:
        raise ValueError("a key without a value")
    return zip(_keys(items[::2]), items[1::2])


def _hint(name: str) -> str:
    if name.startswith("dnnlib.tflib"):
        return "this is a TensorFlow checkpoint; convert it with legacy.py of stylegan2-ada-pytorch first"
    return "get the weights from a source you trust"


_SILENT = frozenset({"PROTO", "FRAME"})
_CODE_ONLY = frozenset({"INST", "OBJ", "EXT1", "EXT2", "EXT4"})
_LITERALS = frozenset(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8""".split()
)
_HANDLERS: dict[str, Callable[[_Machine, Any], object]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(set()),
    "LIST": lambda m, _: m.collect(list),
    "TUPLE": lambda m, _: m.collect(tuple),
    "DICT": lambda m, _: m.collect(lambda items: dict(_pairs(items))),
    "FROZENSET": lambda m, _: m.collect(lambda items: frozenset(_keys(items))),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "ADDITEMS": _Machine.add_items,
    "MARK": _Machine.mark,
    "POP": _Machine.pop_one,
    "POP_MARK": lambda m, _: m.pop_to_mark(),
    "DUP": lambda m, _: m.stack.append(m.top()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": lambda m, _: m.call(keywords=False),
    "NEWOBJ": lambda m, _: m.call(keywords=False),
    "NEWOBJ_EX": lambda m, _: m.call(keywords=True),
    "BUILD": _Machine.build,
    "PERSID": _Machine.persistent_id,
    "BINPERSID": lambda m, _: m.persistent_id(m.pop()),
}
