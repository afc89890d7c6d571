"""The architecture, checked in the source: allowed imports, no import circles, sizes, and file names."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("selfscan", "mystudio")
EYES = ("selfscan",)  # a row allows what begins with one of its entries

#: rooms from the bottom to the top -> what they may import besides themselves, always of rows above theirs.
#: A module belongs to the longest row that its name begins with; ``mystudio`` alone is the version and public names.
ROOMS: dict[str, tuple[str, ...]] = {
    "selfscan.errors": (),
    "selfscan.span": (),
    "selfscan.types": ("selfscan.span",),
    "selfscan.checkpoints": ("selfscan.types",),
    "selfscan.io": ("selfscan.errors", "selfscan.span", "selfscan.types"),
    "selfscan.face": ("selfscan.errors", "selfscan.types", "selfscan.checkpoints", "selfscan.io"),
    "selfscan.perceptual": ("selfscan.errors", "selfscan.io"),
    "selfscan.scan": (
        "selfscan.errors", "selfscan.types", "selfscan.checkpoints", "selfscan.io", "selfscan.face",
        "selfscan.perceptual",
    ),
    "selfscan": (),
    "mystudio.errors": ("selfscan.errors",),
    "mystudio.types": ("selfscan.types", "selfscan.face"),
    "mystudio.compute": ("mystudio.errors",),
    "mystudio.storage.npz": ("selfscan.types", "mystudio.errors"),  # reads untrusted bytes, independent of artifacts
    "mystudio.stylegan2": (*EYES, "mystudio.errors", "mystudio.types", "mystudio.compute", "mystudio.storage.npz"),
    "mystudio.engines": (*EYES, "mystudio.errors", "mystudio.types", "mystudio.stylegan2"),  # protocol and registry
    "mystudio.storage": (
        *EYES, "mystudio.errors", "mystudio.types", "mystudio.storage.npz", "mystudio.stylegan2", "mystudio.engines",
    ),
    "mystudio.bases": ("mystudio.errors", "mystudio.stylegan2", "mystudio.engines"),
    "mystudio.actors": (*EYES, "mystudio.errors", "mystudio.types", "mystudio.storage", "mystudio.bases"),
    "mystudio.motion": (*EYES, "mystudio.errors", "mystudio.types", "mystudio.compute"),
    "mystudio.provenance": (*EYES, "mystudio.errors", "mystudio.types", "mystudio.storage", "mystudio.bases"),
    "mystudio.rendering": (
        *EYES, "mystudio.errors", "mystudio.types", "mystudio.compute", "mystudio.motion", "mystudio.engines",
        "mystudio.stylegan2",
    ),
    "mystudio.evaluation": (
        *EYES, "mystudio.errors", "mystudio.types", "mystudio.storage", "mystudio.motion", "mystudio.engines",
        "mystudio.rendering",
    ),
    "mystudio.base": (
        *EYES, "mystudio.errors", "mystudio.types", "mystudio.compute", "mystudio.storage", "mystudio.stylegan2",
        "mystudio.bases", "mystudio.actors", "mystudio.motion", "mystudio.evaluation",
    ),
    "mystudio.oneshot": (
        *EYES, "mystudio.errors", "mystudio.types", "mystudio.compute", "mystudio.storage", "mystudio.stylegan2",
        "mystudio.bases", "mystudio.actors", "mystudio.motion", "mystudio.base",
    ),
    "mystudio.editing": (
        *EYES, "mystudio.errors", "mystudio.types", "mystudio.storage", "mystudio.engines", "mystudio.rendering",
    ),
    "mystudio.live": (
        *EYES, "mystudio.errors", "mystudio.types", "mystudio.compute", "mystudio.storage", "mystudio.motion",
        "mystudio.engines", "mystudio.rendering",
    ),
    "mystudio.recipe_text": (),
    "mystudio.recipe": (
        "selfscan.io", "mystudio.errors", "mystudio.engines", "mystudio.base", "mystudio.recipe_text",
    ),
}  # fmt: skip
#: every engine: what it shares with the others; the stages above call it by the registry alone
ENGINE = (
    *EYES, "mystudio.errors", "mystudio.types", "mystudio.compute", "mystudio.stylegan2", "mystudio.engines",
    "mystudio.bases", "mystudio.motion", "mystudio.base", "mystudio.oneshot",
)  # fmt: skip
#: above the stages: each may import all rooms and the rows before it, engines by the registry alone
TOP = (
    "mystudio.faces",
    "mystudio.clips",  # two stages of the pipeline
    "mystudio.drafts",
    "mystudio.pipeline",
    "mystudio.api",
    "mystudio.jobs",
    "mystudio.cluster",
    "mystudio.demo",
    "mystudio.doctor",
    "mystudio.inspection",
    "mystudio.gpu_check",
    "mystudio.bench.base_training",
    "mystudio.bench.personal",
    "mystudio.bench",
    "mystudio.web",
    "mystudio.commands",
    "mystudio.cli",
    "mystudio.__main__",
)
#: only an engine's own bench, which measures its parts, may import the engine's modules
KNOWS_ENGINES = ("mystudio.bench.personal",)
MODULE_LINES, FUNCTION_LINES, NESTING = 320, 62, 3
TEST_LINES = 500  # of a test module: tests of one thing stay together
#: names that do not describe the content
FORBIDDEN = {"common", "core", "handler", "helper", "helpers", "manager", "misc", "tools", "util", "utils"}


# The graph


def modules_of(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of the two packages."""
    found = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(root: Path) -> dict[str, set[str]]:
    """Module -> modules it imports, anywhere but for type checkers."""
    files = modules_of(root)
    return {
        name: {known for wanted in _wanted(ast.parse(file.read_text("utf-8"))) if (known := _known(wanted, files))}
        - {name}
        for name, file in files.items()
    }


def _wanted(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"expected an absolute import, got {ast.unparse(node)}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from _wanted(node)


def _known(wanted: str, files: Mapping[str, Path]) -> str | None:
    """The module that a dotted name is, or is a name of."""
    return wanted if wanted in files else next((p for p in (wanted.rpartition(".")[0],) if p in files), None)


def circles_of(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by others."""
    reach = {name: set(of) for name, of in graph.items()}
    for middle in graph:
        for seen in reach.values():
            if middle in seen:
                seen |= reach[middle]
    left = {name for name in graph if name in reach[name]}
    circles = []
    while left:
        first = min(left)
        circles.append(sorted(name for name in left if name in reach[first] and first in reach[name]))
        left -= {*circles[-1]}
    return circles


# The rules


def room_of(module: str) -> str:
    """The row of a module: the longest that its name begins with; an engine is its folder."""
    parts = module.split(".")
    if parts[:2] == ["mystudio", "engines"] and len(parts) > 2 and parts[2] != "protocol":
        return ".".join(parts[:3])
    rows = [row for row in (*ROOMS, *TOP) if module == row or module.startswith(f"{row}.")]
    return max(rows, key=len, default=module)


def may_import(room: str, other: str) -> bool:
    """Whether a room may import another one."""
    if room == other or other == "mystudio" and room.startswith("mystudio."):
        return True
    if room.startswith("mystudio.engines."):
        return _begins(other, ENGINE) and not other.startswith("mystudio.engines.")
    if room in TOP:
        below = (*ROOMS, *TOP[: TOP.index(room)])
        return other in below or room in KNOWS_ENGINES and other.startswith("mystudio.engines.")
    return _begins(other, ROOMS.get(room, ())) and not other.startswith("mystudio.engines.")


def _begins(other: str, allowed: tuple[str, ...]) -> bool:
    return any(other == one or other.startswith(f"{one}.") for one in allowed)


def wrong_directions(graph: Mapping[str, set[str]]) -> dict[tuple[str, str], str]:
    """Rooms of which one may not import the other, and a sentence about a module that does."""
    return {
        (room_of(name), room_of(other)): f"{name} imports {other}: not allowed by the table of rooms"
        for name in sorted(graph)
        for other in sorted(graph[name])
        if not may_import(room_of(name), room_of(other))
    }


def too_long(file: Path, name: str, most: int) -> Iterator[str]:
    """Return a sentence for each part of a file that is too long or nested too deeply."""
    text = file.read_text("utf-8")
    if (lines := len(text.splitlines())) > most:
        yield f"{name} has {lines} lines, at most {most}: split it by topic"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{name}:{node.name} has {lines} lines, at most {FUNCTION_LINES}"
            deepest = NESTING + (_is_compiled(node) or not name.startswith(PACKAGES))
            if (depth := _depth(node)) > deepest:
                yield f"{name}:{node.name} is nested {depth} deep, at most {deepest}"


def _is_compiled(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether numba compiles the function: its loops over samples nest once more, because a call costs time there."""
    return any(ast.unparse(decorator).startswith("njit") for decorator in function.decorator_list)


def _depth(node: ast.AST, elif_of: ast.AST | None = None) -> int:
    """Blocks in blocks; functions and classes inside are counted on their own, an elif as its if."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        block = isinstance(child, (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match))
        chained = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, _depth(child) + (block and not chained))
    return deepest


def source_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of every Python file of the project."""
    for folder in (*PACKAGES, "tests", "recipes", "docs"):
        for file in sorted((root / folder).rglob("*.py")):
            yield file.relative_to(root).as_posix(), file


# The tree


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return imports_of(ROOT)


def test_rows_allow_rows_above_them_alone():
    rows = list(ROOMS)
    for index, (row, allowed) in enumerate(ROOMS.items()):
        assert set(allowed) <= {*rows[:index]}, row


def test_every_module_has_a_row(graph):
    homeless = [name for name in graph if name != "mystudio" and room_of(name) not in (*ROOMS, *TOP)]
    assert [name for name in homeless if not name.startswith("mystudio.engines.")] == []


def test_imports_follow_the_table(graph):
    assert list(wrong_directions(graph).values()) == []


def test_there_are_no_circles(graph):
    assert circles_of(graph) == []


def test_modules_and_functions_are_short():
    found = [
        sentence
        for name, file in source_files(ROOT)
        for sentence in too_long(file, name, TEST_LINES if name.startswith("tests/") else MODULE_LINES)
    ]
    assert found == []


def test_no_file_has_a_name_that_says_nothing():
    named = [name for name, file in source_files(ROOT) if {*Path(name).with_suffix("").parts} & FORBIDDEN]
    assert named == []


# The rules can fail


@pytest.fixture
def small(tmp_path):
    """A tree of two packages with one fault of every kind."""
    files = {
        "selfscan/__init__.py": "",
        "selfscan/errors.py": "",
        "selfscan/io/__init__.py": "",
        "selfscan/io/video.py": "def read():\n    from selfscan.face import track\n",
        "selfscan/face/__init__.py": "",
        "selfscan/face/track.py": "from selfscan.io.video import read\nfrom mystudio import types\n",
        "mystudio/__init__.py": "",
        "mystudio/types.py": "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from mystudio.rendering import render\n",
        "mystudio/engines/__init__.py": "",
        "mystudio/engines/one/__init__.py": "from mystudio.engines.two import solve\n",
        "mystudio/engines/two/__init__.py": "def solve(): ...\n",
        "mystudio/rendering/__init__.py": "",
        "mystudio/rendering/render.py": "import mystudio.engines.one\nfrom mystudio import engines\n",
        "mystudio/storage/helpers.py": "x = 1\n" * (MODULE_LINES + 1)
        + "def long():\n"
        + "    x = 1\n" * FUNCTION_LINES
        + "def deep():\n"
        + "".join("    " * k + "if x:\n" for k in range(1, NESTING + 2))
        + "    " * (NESTING + 2)
        + "pass\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_wrong_directions_are_found(small):
    assert [sentence.split(":")[0] for sentence in wrong_directions(imports_of(small)).values()] == [
        "mystudio.engines.one imports mystudio.engines.two",
        "mystudio.rendering.render imports mystudio.engines.one",
        "selfscan.face.track imports mystudio.types",
        "selfscan.io.video imports selfscan.face.track",
    ]


def test_circles_are_found_also_inside_functions_and_type_checking_is_none(small):
    assert circles_of(imports_of(small)) == [["selfscan.face.track", "selfscan.io.video"]]
    assert circles_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]


def test_sizes_and_names_are_found(small):
    found = [line for name, file in source_files(small) for line in too_long(file, name, MODULE_LINES)]
    assert len(found) == 3 and "lines, at most 320" in found[0]
    assert f"long has {FUNCTION_LINES + 1} lines" in found[1] and f"deep is nested {NESTING + 1} deep" in found[2]
    assert [name for name, _ in source_files(small) if {*Path(name).with_suffix("").parts} & FORBIDDEN] == [
        "mystudio/storage/helpers.py"
    ]
