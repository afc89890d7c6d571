"""docs/licences.md lists every installed and shipped package with the licence that the package states."""

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
FAMILIES = {"Apache": "Apache", "BSD": "BSD", "MIT": "MIT", "MPL": "MPL|Mozilla", "PSF": "PSF|Python Software",
            "Boost": "Boost"}  # fmt: skip


def packages() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    return sorted({re.match(r"[\w.-]+", line).group() for line in wanted})


def terms_of(package: str) -> str:
    """The terms in the row that names a package."""
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and f"`{package}`" in cells[0].split(", "):
            return cells[1]
    return ""


@pytest.mark.parametrize("package", packages())
def test_every_dependency_has_a_row_with_the_terms_that_it_states(package):
    terms = terms_of(package)
    named = [family for family in FAMILIES if family in terms]
    assert named, f"docs/licences.md has no row with the terms of {package}"
    try:
        stated = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed here")
    words = " ".join(
        [
            stated.get("License-Expression") or "",
            (stated.get("License") or "")[:300],
            *(c for c in stated.get_all("Classifier") or [] if c.startswith("License")),
        ]
    )
    if not words.strip():  # it states them in a file alone
        texts = (file for file in metadata.files(package) or [] if file.name.upper().startswith("LICEN"))
        words = " ".join(file.read_text("utf-8")[:300] for file in texts)
    assert any(re.search(FAMILIES[family], words) for family in named), (terms, words)


def test_every_data_file_has_a_row():
    shipped = [
        path
        for package in ("mystudio", "selfscan")
        for folder in ("data", "templates")
        for path in (ROOT / package / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    shipped += (ROOT / "recipes").glob("*.toml")  # setup.py maps this folder into the package
    assert len(shipped) > 10
    for path in shipped:
        place = path.parent.relative_to(ROOT).as_posix()
        named = f"`{place}`" in TEXT and (place != "selfscan/data" or f"`{path.name}`" in TEXT)
        assert named, f"docs/licences.md does not name {path.relative_to(ROOT)}"
