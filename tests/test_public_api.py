"""The public API of ``import mystudio`` and ``import selfscan``: lazy imports, listed names, functions over files."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mystudio
import selfscan
from mystudio import api
from mystudio.errors import BadArtifact, BadRecipe
from mystudio.recipe import resolve
from mystudio.types import Edit

both = pytest.mark.parametrize("package", [mystudio, selfscan], ids=lambda package: package.__name__)
HEAVY = ("torch", "cv2", "mediapipe", "scipy", "pydantic", "click", "numpy")


@both
def test_importing_a_package_loads_nothing_heavy(package):
    code = f"import sys, {package.__name__}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@both
def test_every_name_is_there_and_the_lists_agree(package):
    offered = [name for names in package._HOMES.values() for name in names]
    assert sorted(offered) == sorted(package.__all__) and len(offered) == len(set(offered))
    for home, names in package._HOMES.items():
        for name in names:
            assert getattr(package, name) is getattr(importlib.import_module(home), name)
    assert set(package.__all__) <= set(dir(package))
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    typed = {
        (node.module, alias.name)
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {(home, name) for home, names in package._HOMES.items() for name in names}


@both
def test_no_name_is_that_of_a_module(package):
    """Importing ``mystudio.edit`` would replace the function ``mystudio.edit``."""
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not modules & set(package.__all__)


@both
def test_a_name_that_is_not_offered_is_told(package):
    with pytest.raises(AttributeError, match="has no attribute 'skan'"):
        package.skan  # noqa: B018


def test_every_function_explains_its_arguments():
    for name in mystudio._HOMES["mystudio.api"]:
        assert "Raises:" in getattr(mystudio, name).__doc__


def test_edits_are_strengths_keyframes_or_objects():
    assert api._edit("smile", np.float32(0.5), "stop") == Edit("smile", 0.5, edge="stop")
    assert api._edit("gaze_x", [(0, 0), (1.5, -1)], "project") == Edit("gaze_x", keys=((0.0, 0.0), (1.5, -1.0)))


def test_a_recipe_is_a_name_a_file_or_resolved(tmp_path):
    assert api._resolved("quick", {}) == resolve("quick")
    (tmp_path / "mine.toml").write_text("[scan]\nframes = 20\n", encoding="utf-8")
    options = {"scan.perceptual": "face", "scan.held_out": [(1.0, 2.0)], "scan.sigma": 1e-7}
    made = api._resolved(tmp_path / "mine.toml", options).scan
    assert (made.frames, made.perceptual, made.held_out, made.sigma) == (20, "face", ((1.0, 2.0),), 1e-7)
    assert api._resolved(resolve("quick"), None) == resolve("quick")
    with pytest.raises(BadRecipe, match="resolve it with them"):
        api._resolved(resolve("quick"), {"scan.frames": 3})
    with pytest.raises(BadRecipe, match="did you mean 'frames'"):
        api._resolved("quick", {"scan.frame": 3})
    with pytest.raises(BadRecipe, match="option scan.frames: expected a number"):
        api._resolved("quick", {"scan.frames": object()})


def test_what_is_missing_or_of_another_kind_is_told(tmp_path):
    with pytest.raises(BadArtifact, match="does not exist"):
        mystudio.load(tmp_path / "no.take")
    with pytest.raises(BadArtifact, match="does not exist"):
        mystudio.render(str(tmp_path / "no.take"), tmp_path / "no.mp4")
