"""A matrix of hostile pickles over target, naming, call opcodes and container; none of them may run code."""

import contextlib
import functools
import io
import itertools
import pickle
import pickletools
import struct
import sys
import time
from pathlib import Path

import pytest
from watch import outcome, watched

sys.path.append(str(Path(__file__).resolve().parents[1] / "mystudio" / "stylegan2"))

from test_unpickle import (
    glob,
    inside_bytes,
    legacy_file,
    short,
    text,
    unpickle_for_real,
    zip_file,
)

from mystudio.errors import BadCheckpoint, UnsafeCheckpoint
from mystudio.stylegan2.torchfile import _allowed, open_torch
from mystudio.stylegan2.unpickle import Budget, read_pickle

MARKER = "MARKER-that-is-made-where-code-runs"


def targets(marker):
    """Return calls that Python's own loader would execute; each creates the file ``marker``."""
    make, shell = f"open({marker!r}, 'w').close()", f"touch '{marker}'"
    return {
        ("os", "system"): [shell],
        ("posix", "system"): [shell],
        ("os", "popen"): [shell],
        ("builtins", "exec"): [make],
        ("builtins", "eval"): [make],
        ("builtins", "open"): [marker, "w"],
        ("io", "open"): [marker, "w"],
        ("_io", "open"): [marker, "w"],
        ("codecs", "open"): [marker, "w"],
        ("io", "FileIO"): [marker, "w"],
        ("subprocess", "call"): [["touch", marker]],
        ("subprocess", "run"): [["touch", marker]],
        ("subprocess", "check_output"): [["touch", marker]],
        ("subprocess", "getoutput"): [shell],
        ("os", "mkdir"): [marker],
        ("os", "mknod"): [marker],
        ("os", "open"): [marker, 65],
        ("shutil", "copy"): ["/etc/hostname", marker],
        ("cProfile", "run"): [make, marker],
        ("pathlib", "Path.touch"): [Path(marker)],
        ("pickle", "loads"): [pickle.dumps(_Call(exec, make))],
        ("_pickle", "loads"): [pickle.dumps(_Call(exec, make))],
        ("os", "posix_spawn"): ["/usr/bin/touch", ["touch", marker], {}],
        ("numpy", "savetxt"): [marker, [1]],
        ("torch", "save"): [1, marker],
        ("sqlite3", "connect"): [marker],
        ("shelve", "open"): [marker],
    }


class _Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def value(thing):
    """Return opcodes that push a value, without a memo."""
    return pickletools.optimize(pickle.dumps(thing, 2))[2:-1]


def long_text(word):
    return b"\x8d" + struct.pack("<Q", len(word)) + word.encode()


#: ways to name a global; each pushes it on the stack
NAMINGS = {
    "GLOBAL": lambda module, name: glob(module, name),
    "STACK_GLOBAL": lambda module, name: short(module) + short(name) + b"\x93",
    "STACK_GLOBAL of long texts": lambda module, name: long_text(module) + long_text(name) + b"\x93",
    "STACK_GLOBAL by the memo": lambda module, name: (
        short(module) + b"q\x070" + short(name) + b"r\x08\0\0\0" + b"0h\x07j\x08\0\0\0\x93"
    ),
    "doubled": lambda module, name: glob(module, name) + b"20",
    "kept in the memo": lambda module, name: glob(module, name) + b"q\x6e0h\x6e",
    "framed": lambda module, name: b"\x95" + struct.pack("<Q", len(glob(module, name))) + glob(module, name),
}
#: ways to call it: (naming, arguments) as opcodes -> opcodes
CALLS = {
    "REDUCE": lambda named, given: named + b"(" + given + b"tR",
    "NEWOBJ": lambda named, given: named + b"(" + given + b"t\x81",
    "NEWOBJ_EX": lambda named, given: named + b"(" + given + b"t}\x92",
    "OBJ": lambda named, given: b"(" + named + given + b"o",
    "popped at once": lambda named, given: named + b"(" + given + b"tR0N",
    "in a list": lambda named, given: b"](" + named + b"(" + given + b"tRe",
    "as a key": lambda named, given: b"}" + named + b"(" + given + b"tRNs",
    "in a set": lambda named, given: b"\x8f(" + named + b"(" + given + b"tR\x90",
    "as a state": lambda named, given: (
        glob("collections", "OrderedDict") + b")R}" + text("x") + named + b"(" + given + b"tRsb"
    ),
    "as a persistent id": lambda named, given: named + b"(" + given + b"tRQ",
    "as an argument of an allowed call": lambda named, given: (
        glob("collections", "OrderedDict") + b"(" + named + b"(" + given + b"tRtR"
    ),
    "in a network": lambda named, given: (
        b"}"
        + text("G_ema")
        + glob("torch_utils.persistence", "_reconstruct_persistent_obj")
        + b"}("
        + text("class_name")
        + text("Generator")
        + text("state")
        + b"}"
        + text("x")
        + named
        + b"("
        + given
        + b"tRsu\x85Rs"
    ),
    "as a state of itself": lambda named, given: named + b"(" + given + b"tb",
}
CONTAINERS = {
    "pickle": lambda c: c,
    "zip": zip_file,
    "legacy": legacy_file,
    "storage": inside_bytes,
    "storage, legacy": lambda c: inside_bytes(legacy_file(c)),
    "storage in a storage": lambda c: inside_bytes(inside_bytes(c)),
    "zip in a storage": lambda c: inside_bytes(zip_file(c)),
}


def hostile(marker):
    """(label, content): every target by every naming and call; the call INST names by itself."""
    for (module, name), arguments in targets(marker).items():
        given = b"".join(map(value, arguments))
        for naming, call in itertools.product(NAMINGS, CALLS):
            yield (
                (f"{module}.{name}", naming, call),
                b"\x80\x04" + CALLS[call](NAMINGS[naming](module, name), given) + b".",
            )
        yield (f"{module}.{name}", "INST", "INST"), b"(" + given + f"i{module}\n{name}\n.".encode()


def refused(content, src):
    src.write_bytes(content)
    with pytest.raises((UnsafeCheckpoint, BadCheckpoint)) as told:
        open_torch(src)
    assert "\n" not in str(told.value) and len(str(told.value)) < 500 and str(told.value).isprintable()


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_call_is_obeyed_whatever_its_name_opcodes_and_container(tmp_path, container):
    count = 0
    (tmp_path / "in").mkdir()
    marker = tmp_path / "in" / "ran"  # in a folder that the reader may write: only the marker shows that code ran
    for label, content in hostile(str(marker)):
        with watched(tmp_path):
            refused(CONTAINERS[container](content), tmp_path / "net.pkl")
        assert not marker.exists(), label
        count += 1
    assert count == len(targets("")) * (len(NAMINGS) * len(CALLS) + 1)


@pytest.mark.parametrize("target", targets(MARKER), ids=".".join)
def test_each_target_is_a_real_attack(tmp_path, monkeypatch, target):
    """Control: Python's own loader runs these pickles, so they are not harmless."""
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "ran"
    given = b"".join(map(value, targets(str(marker))[target]))
    unpickle_for_real(b"\x80\x04" + CALLS["REDUCE"](NAMINGS["STACK_GLOBAL"](*target), given) + b".")
    for _ in range(100):
        if list(tmp_path.iterdir()):
            return
        time.sleep(0.05)  # a shell runs in the background
    pytest.fail("nothing was made")


@pytest.mark.parametrize(
    "call", [c for c in CALLS if c not in ("NEWOBJ", "NEWOBJ_EX", "as a state of itself", "in a network")]
)
def test_each_way_to_call_is_a_real_attack(tmp_path, call):
    given = value(f"touch '{tmp_path / 'ran'}'")
    unpickle_for_real(b"\x80\x04" + CALLS[call](NAMINGS["GLOBAL"]("os", "system"), given) + b".")
    assert (tmp_path / "ran").exists()


DUNDERS = (
    "__class__",
    "__init__",
    "__init__.__globals__",
    "__reduce__",
    "__subclasses__",
    "__globals__",
    "__builtins__",
    "__dict__",
    "__doc__",
    "__module__",
    "__getattribute__",
    "__call__",
    "mro",
    "__bases__",
    "__loader__",
    "__code__",
    "__self__",
    "__func__",
    "__wrapped__",
    "__kwdefaults__",
)


def test_no_attribute_of_an_allowed_name_is_reached():
    for allowed in sorted(_allowed(Budget())):
        module, name = allowed.split(" ")
        for dunder in DUNDERS:
            for pair in (
                (module, f"{name}.{dunder}"),
                (f"{module}.{name}", dunder),
                (module, dunder),
                (module, f"{name}\n{dunder}"),
                (module + " ", name),
                (" " + module, name),
                (module, name + "\0"),
                (module.upper(), name),
                ("", f"{module} {name}"),
                (f"{module} {name}", ""),
                (f"{module}.", name),
                (f"{module}.{dunder}", name),
            ):
                content = b"\x80\x04" + long_text(pair[0]) + long_text(pair[1]) + b"\x93."
                with pytest.raises(UnsafeCheckpoint):
                    read_pickle(io.BytesIO(content), _allowed(Budget()), Budget())


ODD = {
    "nothing": b"N",
    "true": b"\x88",
    "number": value(7),
    "negative": value(-1),
    "large": value(1 << 100),
    "half": value(0.5),
    "text": value("f4"),
    "no text": value(""),
    "bytes": b"C\x04\0\0\0\0",
    "list": b"]",
    "tuple": b")",
    "dict": b"}",
    "set": b"\x8f",
    "pair": value((1, 2)),
    "pairs": value([("a", 1), ("a",)]),
    "a name": glob("torch", "FloatStorage"),
    "a dtype": glob("numpy", "dtype") + value("f4") + b"\x85R",
    "a record": glob("argparse", "Namespace") + b")R",
    "a list in itself": b"]q\x65h\x65a",
    "deep": b")" + b"\x85" * 300,
    "many": value(list(range(2000))),
}


def test_allowed_calls_with_odd_arguments_give_values_or_refusals(tmp_path):
    count, names = 0, _allowed(Budget())
    with watched(tmp_path):
        for allowed, first in itertools.product(sorted(names), ODD):
            for rest, after in itertools.product((b"", *ODD.values()), (b"", value((1, ">")) + b"b")):
                content = b"\x80\x04" + glob(*allowed.split(" ")) + b"(" + ODD[first] + rest + b"tR" + after + b"."
                count += 1
                with contextlib.suppress(BadCheckpoint, UnsafeCheckpoint):
                    read_pickle(io.BytesIO(content), _allowed(Budget()), Budget())
    assert count == len(names) * len(ODD) * (len(ODD) + 1) * 2


def doubling(levels):
    """Tuples that hold the one before twice: 2^levels leaves in a few bytes."""
    return b"N" + b"".join(b"q\x01h\x01\x86" for _ in range(levels))


BOMBS = {
    "doubled tuples": b"\x80\x04" + doubling(2000) + b".",
    "doubled tuples as weights": b"\x80\x04}" + text("g_ema") + b"}" + text("input.input") + doubling(2000) + b"ss.",
    "doubled tuples as a name": b"\x80\x04" + doubling(60) + doubling(60) + b"\x93.",
    "doubled tuples as a key": b"\x80\x04}" + doubling(60) + b"Ns.",
    "doubled tuples as an argument": b"\x80\x04" + glob("collections", "OrderedDict") + doubling(60) + b"\x85R.",
    "doubled tuples as a persistent id": b"\x80\x04" + doubling(60) + b"Q.",
    "doubled tuples as a shape": b"\x80\x04"
    + glob("torch._utils", "_rebuild_tensor_v2")
    + b"(N"
    + value(0)
    + doubling(30) * 2
    + b"tR.",
    "frame beyond the end": b"\x80\x04\x95" + struct.pack("<Q", (1 << 63) - 1) + b"N.",
    "frames in frames": b"\x80\x04" + (b"\x95" + struct.pack("<Q", 8)) * 50_000 + b"N.",
    "bytes beyond the end": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "text beyond the end": b"\x80\x04X\xff\xff\xff\xff.",
    "number beyond the end": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "memo filled": b"\x80\x04" + b"".join(b"Nr" + struct.pack("<I", i) + b"0" for i in range(200_000)) + b"N.",
    "marks alone": b"\x80\x04" + b"(" * 500_000 + b".",
    "one list, appended to itself": b"\x80\x04]q\x00" + b"h\x00a" * 100_000 + b".",
    "copies by allowed calls": b"\x80\x04"
    + value(list(range(3000)))
    + b"q\x01"
    + (glob("collections", "OrderedDict") + b"h\x01\x85R0") * 3000
    + b".",
    "sets of one list": b"\x80\x04"
    + value(list(range(3000)))
    + b"q\x01"
    + (glob("builtins", "set") + b"h\x01\x85R") * 3000
    + b".",
    "encoded again and again": b"\x80\x04"
    + text("\xe9" * 2000)
    + b"q\x01"
    + (glob("_codecs", "encode") + b"h\x01\x85R") * 20_000
    + b".",
    "storages of storages": functools.reduce(lambda inner, _: inside_bytes(legacy_file(inner)), range(60), b"N."),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_cost_little(tmp_path, kind):
    def read(data, folder):
        (folder / "x.pkl").write_bytes(data)
        open_torch(folder / "x.pkl")

    outcome(read, BOMBS[kind], tmp_path, megabytes=160)


def test_a_list_of_members_that_is_absurdly_long_is_refused(tmp_path):
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = (20 << 20) // len(entry)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, count * len(entry), 30, 0)
    data = b"PK\3\4" + bytes(26) + entry * count + end

    def read(data, folder):
        (folder / "x.pt").write_bytes(data)
        open_torch(folder / "x.pt")

    assert isinstance(outcome(read, data, tmp_path), BadCheckpoint)
