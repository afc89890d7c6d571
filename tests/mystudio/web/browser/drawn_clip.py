"""The last steps of the whole way: the clip of an open take is drawn, downloaded and verified."""

from __future__ import annotations

from pathlib import Path


def downloaded(tab, folder: Path) -> Path:
    """Draw the avatar of the open take alone, and download the clip into a folder."""
    alone = tab.locator(".job", has_text="The avatar alone")
    alone.get_by_role("button", name="Draw it").click()
    with tab.expect_download() as download:
        alone.get_by_role("link", name="Download").click()
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


def verified(tab, address: str, file: Path) -> None:
    """Drop a file into the Verify room of a studio; it says that the file is synthetic."""
    tab.goto(f"{address}/verify")
    tab.locator("input[type=file]").set_input_files(file)
    tab.get_by_role("heading", name="It is marked as synthetic").wait_for()
