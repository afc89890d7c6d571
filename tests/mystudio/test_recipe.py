"""Recipes: strict, resolved and explained; an error for a wrong key names the nearest valid key."""

import dataclasses
import inspect
import io
import re
import sys
import textwrap
import tokenize
from dataclasses import dataclass, field
from typing import Literal, get_type_hints

import pytest

from mystudio import engines, recipe, recipe_text
from mystudio.base.settings import BaseSettings
from mystudio.errors import BadRecipe


@dataclass(frozen=True)
class Inner:
    """Nested settings."""

    rate: float = 1e-5  # step
    layers: tuple[int, ...] = (1, 2)  # which


@dataclass(frozen=True)
class Outer:
    """Settings of every kind."""

    steps: int = 30  # optimisation steps (paper: 1000)
    # how wide
    # the net is
    width: float = 0.5
    name: Literal["lpips", "offline"] = "lpips"
    on: bool = True
    path: str | None = None  # a "file"
    #   which is read
    #   once
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError("steps: expected at least 1")


@pytest.fixture
def one_stage(monkeypatch, tmp_path):
    """Recipes with one table, [tune]."""
    monkeypatch.setattr(recipe, "STAGES", {"tune": f"{__name__}:Outer"})
    monkeypatch.setattr(engines, "ENGINES", {})
    monkeypatch.setattr(
        recipe,
        "Recipe",
        dataclasses.make_dataclass(
            "Recipe",
            ["name", "tune", "engines"],
            frozen=True,
            namespace={"show": recipe.Recipe.show, "tables": recipe.Recipe.tables},
        ),
    )
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Outer.__module__])

    def resolve(text: str, *options: str) -> Outer:
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return recipe.resolve(tmp_path / "mine.toml", options).tune

    return resolve


def test_values_arrive_with_their_types(one_stage):
    made = one_stage('[tune]\nsteps = 3\nwidth = 1\nname = "offline"\non = false\ninner.layers = [4]\n')
    assert made == Outer(3, 1.0, "offline", False, None, Inner(1e-5, (4,)))
    assert isinstance(made.width, float)


@pytest.mark.parametrize(
    "options, expected",
    [
        (["tune.steps=7"], Outer(steps=7)),
        (["tune.steps=7", "tune.steps = 8"], Outer(steps=8)),
        (["tune.name=offline"], Outer(name="offline")),
        (['tune.name="offline"'], Outer(name="offline")),
        (["tune.on=false", "tune.path=/a b/c=d"], Outer(on=False, path="/a b/c=d")),
        (["tune.inner.layers=[3, 4]", "tune.inner.rate=1e-2"], Outer(inner=Inner(1e-2, (3, 4)))),
    ],
)
def test_options_override(one_stage, options, expected):
    assert one_stage("[tune]\nsteps = 30\n", *options) == expected


@pytest.mark.parametrize(
    "text, options, words",
    [
        ("[tnue]\n", [], r"no table \[tnue\]; did you mean 'tune'"),
        ("[tune]\nstep = 3\n", [], "no key 'step'; did you mean 'steps'"),
        ("[tune]\nzzzz = 3\n", [], "known are inner, name, on, path, steps, width"),
        ("[tune.inner]\nrat = 3\n", [], "inner: there is no key 'rat'; did you mean 'rate'"),
        ("", ["tune.widht=2"], "did you mean 'width'"),
        ("", ["nonsense"], "stage.key=value"),
        ("", ["tune=3"], "stage.key=value"),
        ("", ["tune.steps"], "stage.key=value"),
        ("", ["tune.steps.more=3"], "integer|no key"),
        ("[tune]\nsteps = 3\n", ["tune.steps.more=3"], "holds a value"),
        ("", ["tune.inner=3"], "expected a table"),
        ("tune = 3\n", [], "expected a table"),
        ("[[tune]]\n", [], "expected a table"),
        ("[tune]\nsteps = 3.5\n", [], "steps.*integer"),
        ("[tune]\nsteps = true\n", [], "steps.*integer"),
        ('[tune]\nsteps = "3"\n', [], "steps.*integer"),
        ("[tune]\non = 1\n", [], "on.*boolean"),
        ('[tune]\nname = "alex"\n', [], "name.*'lpips' or 'offline'"),
        ("[tune]\nsteps = 0\n", [], "expected at least 1"),
        ("[tune]\nwidth = nan\n", [], "finite"),
        ("[tune]\nwidth = inf\n", [], "finite"),
        ("[tune]\nwidth = -0.1\n", [], "0 or more"),
        ("[tune]\nwidth = 2024-01-01\n", [], "date"),
        ("[tune\n", [], "not valid TOML"),
        ("[tune]\nsteps = 1\nsteps = 2\n", [], "not valid TOML"),
        ("a = " + "[" * 50_000, [], "not valid TOML"),
    ],
)
def test_a_mistake_is_one_clear_sentence(one_stage, text, options, words):
    with pytest.raises(BadRecipe, match=words) as error:
        one_stage(text, *options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("old, new", recipe.SUCCESSORS.items())
def test_a_key_of_an_older_version_names_its_successor(tmp_path, old, new):
    words = f"{re.escape(old)} is now {re.escape(new)}; rename the key"
    with pytest.raises(BadRecipe, match=words):
        recipe.resolve("default", [f"{old}=1.0"])
    stage, key = old.split(".")
    (tmp_path / "old.toml").write_text(f"[{stage}]\n{key} = 1.0\n")
    with pytest.raises(BadRecipe, match=words):
        recipe.resolve(tmp_path / "old.toml")
    assert recipe.resolve("default", [f"{new}=1.0"]) != recipe.resolve("default")


def test_a_message_names_the_option_or_the_file_that_holds_the_old_key(tmp_path):
    (tmp_path / "old.toml").write_text("[reenact]\npose = 1.0\n")
    with pytest.raises(BadRecipe, match=r"^option 'reenact\.pose=1\.0': "):
        recipe.resolve("default", ["reenact.pose=1.0"])
    with pytest.raises(BadRecipe, match=re.escape(f"{tmp_path / 'old.toml'}: ")):
        recipe.resolve(tmp_path / "old.toml")


def test_the_printed_settings_explain_every_key_in_the_words_of_toml():
    for line in recipe.resolve("default").show().splitlines()[1:]:
        if line and not line.startswith("["):
            _, _, comment = line.partition("  # ")
            assert comment and not re.search(r"\bNone\b|``", comment), line


def test_a_file_that_is_not_there_not_text_or_too_large(tmp_path):
    with pytest.raises(BadRecipe, match="did you mean 'default'"):
        recipe.resolve("defualt")
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadRecipe, match="not valid TOML"):
        recipe.resolve(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_bytes(b"#" * (recipe.MAX_BYTES + 1))
    with pytest.raises(BadRecipe, match="bytes"):
        recipe.resolve(tmp_path / "a.toml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_recipe_of_any_editor_is_read(encoding, ends, tmp_path):
    text = f"# Ä{ends}[reenact]{ends}steps = 31{ends}"
    (tmp_path / "a.toml").write_bytes(text.encode(encoding))
    assert recipe.resolve(tmp_path / "a.toml").of("personal", "reenact").reenact.steps == 31


def test_comments_become_explanations():
    docs = recipe_text.field_docs(Outer)
    assert docs["steps"] == "optimisation steps (paper: 1000)"
    assert docs["width"] == "how wide the net is"
    assert docs["name"] == ""
    assert docs["path"] == 'a "file" which is read once'
    assert docs["inner"] == ""


TABLES = recipe.resolve().tables()  # of all stages and engines


def classes_of_settings() -> list[type]:
    """Every settings class of a recipe of the stages or of a base, and the classes of their fields."""
    found: dict[type, None] = {}
    open_ = [*map(type, TABLES.values()), *get_type_hints(BaseSettings).values()]
    while open_:
        if (cls := open_.pop(0)) not in found:
            found[cls] = None
            open_ += filter(dataclasses.is_dataclass, get_type_hints(cls).values())
    return list(found)


@pytest.mark.parametrize("cls", classes_of_settings())
def test_a_comment_that_continues_below_belongs_to_its_own_key(cls):
    said: dict[str, list[str]] = {}
    field = ""
    source = textwrap.dedent(inspect.getsource(cls))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.start[1] == 4 and token.string in cls.__dataclass_fields__:
            field = token.string
        if token.type == tokenize.COMMENT and field:
            alone = token.line.lstrip().startswith("#")
            assert not alone or token.string.startswith("#   "), f"{token.line}: a second line starts with '#   '"
            said.setdefault(field, []).append(token.string.lstrip("#: ").strip())
    docs = recipe_text.field_docs(cls)
    for name in cls.__dataclass_fields__:
        assert docs[name] == " ".join(said.get(name, [])), name


def test_what_is_shown_resolves_to_the_same(one_stage, tmp_path):
    options = ["tune.steps=7", 'tune.path="C:\\\\ü"', "tune.inner.layers=[]", "tune.width=1e-7"]
    (tmp_path / "a.toml").write_text("", encoding="utf-8")
    first = recipe.resolve(tmp_path / "a.toml", options)
    assert one_stage(first.show()) == first.tune
    assert "# optimisation steps (paper: 1000)" in first.show()
    assert "# (lpips | offline)" in first.show()


@pytest.mark.parametrize("name", recipe.names())
def test_the_recipes_that_come_along_resolve_and_show_the_same(name, tmp_path):
    made = recipe.resolve(name)
    (tmp_path / f"{name}.toml").write_text(made.show(), encoding="utf-8")
    assert recipe.resolve(tmp_path / f"{name}.toml") == made
    assert recipe.describe(name)


def test_default_quick_and_paper_come_along():
    assert {"default", "quick", "paper"} <= set(recipe.names())


def test_the_paper_recipe_tunes_as_mystyle_published():
    tuned = recipe.resolve("paper", ()).of("personal", "personalize").personalize
    assert (tuned.optimizer, tuned.rate, tuned.batch, tuned.decay, tuned.average) == ("adam", 3e-4, 1, 0, 0)
    assert tuned.face == tuned.eyes == tuned.mouth == tuned.landmarks == 0


@pytest.mark.parametrize("cls", [*map(type, TABLES.values())], ids=[*TABLES])
def test_settings_are_frozen_documented_and_have_defaults(cls):
    assert cls.__dataclass_params__.frozen
    cls()
    lines = list(recipe_text.toml_lines(cls()))
    assert [line for line in lines if "#" not in line and not line.startswith("seed =")] == []


def test_a_wrong_key_in_a_real_recipe_names_the_right_one():
    with pytest.raises(BadRecipe, match=r"\[reenact\].*did you mean 'steps'"):
        recipe.resolve("default", ["reenact.stesp=30"])


@pytest.mark.parametrize("name", recipe.names(recipe.BASE))
def test_recipes_of_bases_resolve_and_every_setting_says_what_it_is(name):
    made = recipe.resolve_base(name, ["adversarial.augment.target=0.5"])
    assert made.adversarial.augment.target == 0.5
    for part in (made.model, made.train, made.supervised, made.adversarial):
        assert all("#" in line for line in recipe_text.toml_lines(part))
    with pytest.raises(BadRecipe, match="did you mean 'kimg'"):
        recipe.resolve_base(name, ["adversarial.kmig=3"])
