"""The package works from any folder: as a wheel, as an editable install, and from the source tree."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from mystudio import recipe

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "mystudio", "selfscan", "recipes")
RECIPES = sorted(path.name for path in (ROOT / "recipes").glob("*.toml"))


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run a command in another folder; the source tree is reachable only where ``variables`` say so."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"} | variables
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=1800
    )


def pip(*options: str | Path, cwd: Path) -> None:
    if missing := [name for name in ("pip", "setuptools") if find_spec(name) is None]:
        pytest.skip(f"building a wheel needs {' and '.join(missing)}")
    done = run(sys.executable, "-m", "pip", *options, "--no-deps", "--no-build-isolation", cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """Copy the sources of a wheel, because building writes beside them."""
    place = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
        else:
            shutil.copy(ROOT / name, place)
    return place


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    pip("wheel", sources, "--wheel-dir", place, cwd=place)
    return next(place.glob("*.whl"))


def environment(place: Path) -> Path:
    """An empty virtual environment; returns its Python."""
    venv.create(place, symlinks=os.name != "nt", with_pip=False)
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def lend_packages(python: Path) -> None:
    """Add this environment's packages to another's path, after its own; a .pth line does not run other .pth files."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", code, cwd=python.parent).stdout.strip())
    own = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "lent.pth").write_text("\n".join(own) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The Python of an environment in which the wheel alone was installed."""
    python = environment(tmp_path_factory.mktemp("environment"))
    pip("--python", python, "install", wheel, cwd=wheel.parent)
    lend_packages(python)
    return python


@pytest.fixture(scope="module")
def editable(sources, tmp_path_factory) -> Path:
    """The Python of an environment in which the sources were installed with ``pip install -e``."""
    python = environment(tmp_path_factory.mktemp("environment"))
    lend_packages(python)  # with setuptools, which builds
    pip("--python", python, "install", "--ignore-installed", "--editable", sources, cwd=sources)
    return python


def check_recipes(python: Path, package: Path, elsewhere: Path, **variables: str) -> None:
    """``mystudio recipe list`` and ``show`` work from another folder and use the intended package."""
    where = run(python, "-c", "import mystudio; print(mystudio.__file__)", cwd=elsewhere, **variables)
    assert Path(where.stdout.strip()).is_relative_to(package), where
    found = run(python, "-m", "mystudio.cli", "recipe", "list", "--json", cwd=elsewhere, **variables)
    assert sorted(json.loads(found.stdout)["recipes"]) == recipe.names(), found.stderr
    shown = run(python, "-m", "mystudio.cli", "recipe", "show", "quick", cwd=elsewhere, **variables)
    assert shown.stdout == recipe.resolve("quick").show(), shown.stderr


def test_a_wheel_carries_data_and_recipes_and_no_programs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.removeprefix("mystudio/recipes/") for name in names if "recipes/" in name} == set(RECIPES)
    for package in ("mystudio", "selfscan"):
        tree = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*") if path.is_file()}
        tree = {name for name in tree if "__pycache__" not in name}
        assert tree <= names and f"{package}/py.typed" in names, tree - names
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"mystudio", "selfscan"}


def test_a_wheel_in_an_empty_environment_finds_its_recipes(installed, tmp_path):
    check_recipes(installed, installed.parents[1], tmp_path)
    command = installed.with_name("mystudio.exe" if os.name == "nt" else "mystudio")
    assert run(command, "--version", cwd=tmp_path).stdout.startswith("mystudio, version")
    bases = run(command, "base", "list", cwd=tmp_path)
    assert "people128" in bases.stdout, bases.stderr


def test_an_editable_install_finds_its_recipes(editable, sources, tmp_path):
    check_recipes(editable, sources, tmp_path)


def test_the_source_tree_finds_its_recipes(sources, tmp_path):
    check_recipes(Path(sys.executable), sources, tmp_path, PYTHONPATH=str(sources))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_wheel_in_an_empty_environment_makes_the_demo(installed, tmp_path):
    done = run(installed.with_name("mystudio"), "demo", "-o", "made", cwd=tmp_path, MYSTUDIO_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made/report/report.html").is_file() and (tmp_path / "made/smiling.mp4").stat().st_size > 10_000


def test_the_package_reads_the_recipes_at_the_top():
    assert recipe.FOLDER == ROOT / "recipes"
    assert RECIPES == sorted(
        f"{name}.toml" for name in recipe.names() + recipe.names(recipe.BASE) + recipe.names("hyper")
    )


def test_no_file_is_a_symbolic_link():
    """Windows checkouts and some archives turn links into text files."""
    hidden = {".git", ".venv", ".ruff_cache", ".pytest_cache", ".hypothesis", "build", "dist"}
    links = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in hidden]
        links += [path for name in (*folders, *files) if (path := Path(folder, name)).is_symlink()]
    assert links == []
