"""The documents match the code (links, names, commands, settings), and their sentences are short."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import textwrap
from functools import lru_cache
from pathlib import Path

import click
import frozen_engine
import pytest

import mystudio
from mystudio import recipe
from mystudio.base.settings import BaseSettings
from mystudio.cli import cli
from mystudio.commands import jobs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *(page for page in DOCS.rglob("*.md") if page != DOCS / "cli.md")])
GENERATED = DOCS / "cli.md"  # has its own test: it is the commands' help
FOLDERS = ("mystudio/", "selfscan/", "tests/", "recipes/", "docs/", ".ci/")
MOST_WORDS = 30  # of a sentence; docs/conventions.md asks for 25
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
#: removed names, which only the pages on history may use
HISTORY = {DOCS / "changelog.md"}


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=named)


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("\n", text)


@lru_cache
def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", prose(page.read_text(encoding="utf-8")), re.M)
    heads = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head) for head in heads]
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@every_page
def test_links_resolve(page):
    text = page.read_text(encoding="utf-8")
    for target in [*LINK.findall(text), *re.findall(r'src="([^"]+)"', text)]:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{named(page)}: {target} leads nowhere"
        if anchor:
            assert anchor in anchors(file), f"{named(page)}: {target}: that page has {sorted(anchors(file))}"


@every_page
def test_files_that_are_named_exist(page):
    for name in words_of(page):
        path = name.split("#")[0].rstrip("/")
        if page in HISTORY or not re.fullmatch(r"[\w./-]+", path) or re.search(r"/NAME\b", path):
            continue
        if name.startswith(FOLDERS):
            assert (ROOT / path).exists(), f"{named(page)}: there is no {path}"
        elif path.endswith(".py"):  # without its folder, as where a table names several of one folder
            found = (ROOT / path).exists() or any(file.as_posix().endswith(f"/{path}") for file in code())
            assert found, f"{named(page)}: there is no {path}"


@lru_cache
def code() -> list[Path]:
    """All modules and programs."""
    return [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]


@every_page
def test_modules_that_are_named_exist(page):
    """``mystudio.motion.retarget`` is a module, and what follows a module's name is defined in it."""
    for name in words_of(page):
        if re.fullmatch(r"(mystudio|selfscan)(\.\w+)+", name) and page not in HISTORY and name not in LABELS:
            assert is_defined(name), f"{named(page)}: there is no {name}"


LABELS = {"mystudio.render"}  # of the assertion in a C2PA manifest


def words_of(page: Path) -> list[str]:
    """Return all text in backticks."""
    return CODE.findall(prose(page.read_text(encoding="utf-8")))


def is_defined(name: str) -> bool:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                rest = parts[count:]
                return not rest or rest[0] in defined_in(file)
    return False


@lru_cache
def defined_in(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and file.name == "__init__.py":
            names.add(node.value)  # names that a package exports lazily
    return names


@every_page
def test_commands_that_are_named_exist(page):
    """Each ``mystudio WORD ... --option`` is a command with that option."""
    for line in commands_of(page):
        check_command(line, f"{named(page)}: {line}")


def commands_of(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    blocks = [body.replace("\\\n", " ") for _, body in FENCE.findall(text)]
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    lines += [code.strip() for code in CODE.findall(prose(text))]
    return [line for line in lines if re.match(r"mystudio( |$)", line)]


def check_command(line: str, where: str) -> None:
    words = shlex.split(line.replace("...", ""), comments=True)[1:]
    group: click.Command = cli
    while isinstance(group, click.Group):
        if words and words[0] in group.commands:
            group, words = group.commands[words[0]], words[1:]
        elif words and hasattr(group, "default"):
            group = group.commands[group.default]
        else:
            assert not words or words[0].startswith("-") or words[0].isupper(), f"{where}: there is no such command"
            break
    known = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h"}
    for number, word in enumerate(words):
        if group is jobs.add and word in jobs.KINDS:  # what follows is a command of its own
            return check_command(shlex.join(["mystudio", *words[number:]]), where)
        if word.startswith("-") and not re.fullmatch(r"-[\d.]+", word):
            assert word.split("=")[0] in known, f"{where}: there is no option {word}"


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [*CODE.findall(prose(text)), *(line for _, body in FENCE.findall(text) for line in body.splitlines())]
        for line in lines:
            if found := re.match(r"make (\w+)", line.strip()):
                assert found[1] in targets, f"{named(page)}: the Makefile has no {found[1]}"


@lru_cache
def settings() -> dict[str, set[str]]:
    """Table of a recipe -> its keys."""
    found: dict[str, set[str]] = {}
    for line in recipe.resolve("default").show().splitlines():
        if head := re.match(r"\[([\w.]+)\]", line):
            found[table := head[1]] = set()
        elif key := re.match(r"(?:# )?([\w.]+) (?:=|is not set)", line):
            found[table].add(key[1])
    found["frozen.look"] = {field.name for field in dataclasses.fields(frozen_engine.LookSettings)}
    for table, cls in BaseSettings.__annotations__.items():
        cls = getattr(__import__("mystudio.base.settings", fromlist=["_"]), str(cls).split(".")[-1], None)
        found.setdefault(table, set()).update(getattr(cls, "__dataclass_fields__", ()))
    return found


@every_page
def test_settings_that_are_named_exist(page):
    """``personalize.steps`` is a key of a recipe; ``retarget.motion`` may also be a name of a module."""
    if page in HISTORY:
        return
    text = page.read_text(encoding="utf-8")
    options = re.findall(r"--option[ =]([\w.]+)=", text)
    for name in [*options, *words_of(page)]:
        table, dot, key = name.rpartition(".")
        if not dot or table not in settings() or not re.fullmatch(r"\w+", key):
            assert name not in options, f"{named(page)}: there is no setting {name}"
            continue
        module = next((file for file in ROOT.glob(f"mystudio/**/{table}.py")), None)
        fine = key in settings()[table] or key == "py" or (module and key in defined_in(module))
        assert fine, f"{named(page)}: there is no setting {name}; [{table}] has {sorted(settings()[table])}"


@every_page
def test_python_in_the_pages_is_right(page):
    """Code blocks parse, their imports exist, and the names from ``mystudio`` are public."""
    for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(body))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(("mystudio", "selfscan")):
                wanted = [f"{node.module}.{alias.name}" for alias in node.names]
                assert all(map(is_defined, wanted)), f"{named(page)}: {ast.unparse(node)}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mystudio":
                assert node.attr in mystudio.__all__, f"{named(page)}: mystudio.{node.attr} is not public"


@every_page
def test_no_machine_is_named(page):
    """No path of one machine, and no host of a package registry."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.~$}])/(work|home|root|tmp|opt|mnt|Users)/", text), named(page)
    assert not re.search(r"pypi|pythonhosted|https?://(?!c2pa\.org|github\.com|arxiv\.org|doi\.org)", text, re.I), (
        named(page)
    )


def test_the_worked_example_of_an_engine_is_the_frozen_engine():
    """Each line of code in the guide is a line of the engine in the tests."""
    engine = {line.strip() for line in Path(frozen_engine.__file__).read_text(encoding="utf-8").splitlines()}
    for language, body in FENCE.findall((DOCS / "adding_an_engine.md").read_text(encoding="utf-8")):
        if language == "python":
            assert {line.strip() for line in body.splitlines()} <= engine, body


def test_the_tree_of_the_architecture_names_every_folder_and_module():
    """The two levels that the page shows: folders of both packages, and modules beside them."""
    tree = FENCE.findall((DOCS / "architecture.md").read_text(encoding="utf-8"))[1][1]
    for package in ("selfscan", "mystudio"):
        own = re.search(rf"^{package}/.*\n((?:  .*\n)+)", tree, re.M)[1]
        for found in (ROOT / package).iterdir():
            name = f"{found.name}/" if (found / "__init__.py").is_file() else found.name
            if name.endswith((".py", "/")) and not name.startswith("__"):
                assert re.search(rf"(^|\s){re.escape(name)}", own), f"docs/architecture.md: the tree lacks {name}"


def test_every_experiment_is_in_the_index():
    index = (DOCS / "experiments" / "README.md").read_text(encoding="utf-8")
    for page in (DOCS / "experiments").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, f"docs/experiments/README.md lacks {page.name}"


def test_every_page_can_be_found_from_the_readme():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        links = [link.split("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
        todo += [(page.parent / link).resolve() for link in links if link and not re.match(r"[a-z]+:", link)]
    missing = {named(page) for page in [*PAGES, GENERATED]} - {named(page) for page in seen}
    assert not missing, f"no link leads from README.md to {sorted(missing)}"


@every_page
def test_sentences_are_short(page):
    for sentence in sentences(page.read_text(encoding="utf-8")):
        count = len(re.findall(r"[A-Za-z][\w'’-]*", sentence))
        assert count <= MOST_WORDS, f"{named(page)}: {count} words: {sentence}"


def sentences(text: str) -> list[str]:
    """Sentences of paragraphs and list items; code, tables, headings and formulas are none."""
    blocks, block = [], []
    for line in [*prose(text).splitlines(), ""]:
        line_is_other = not line.strip() or line.lstrip().startswith(("|", "#", "<", "!["))
        if line_is_other or re.match(r"\s*([-*]|\d+\.) ", line) or (line.startswith("    ") and not block):
            blocks.append(" ".join(block))
            block = []
        if not line_is_other and not (line.startswith("    ") and not block):
            block.append(re.sub(r"^\s*([-*]|\d+\.) ", "", line.strip()))
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", CODE.sub("X", block)).replace("**", "") for block in blocks]
    return [sentence for block in plain for sentence in re.split(r"(?<=[.!?])\s+|(?<=[:;])\s+(?=[A-Z])", block)]
