"""The report is one page that holds everything, escapes everything and shows what was measured."""

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from mystudio.evaluation import report
from mystudio.evaluation.report import Curve, Page


def numbers(**changes):
    row = {
        "name": "keypoints", "title": "Keypoint distance", "unit": "%", "better": "lower is better", "digits": 2,
        "headline": True, "note": "", "definition": "Mean distance.", "value": 1.234, "all_frames": 1.5, "p5": 0.5,
        "p95": 2.5,
    }  # fmt: skip
    missing = row | {"name": "identity", "title": "Identity", "value": float("nan"), "p5": None, "p95": None,
                     "note": "not measured: no face network was given"}  # fmt: skip
    return {
        "title": "Ada, driven by b.mp4", "summary": "12 frames.", "frames": {"total": 12}, "held_out_frames": 0,
        "metrics": [row, missing], "per_frame": {}, "warnings": ["2 of 12 frames had no face and were held."],
        "facts": {"person": "Ada"}, "recipe": {"take": {"steps": 6}}, "versions": {"torch": "2"},
    } | changes  # fmt: skip


@pytest.fixture
def page():
    rng = np.random.default_rng(0)
    images = [cv2.resize(rng.integers(0, 255, (8, 8, 3), np.uint8), (256, 256)) for _ in range(3)]
    times = np.cumsum([0, *[0.04] * 11])
    outcome = np.zeros(12, np.uint8)
    outcome[4:6] = 2
    curves = [
        Curve("Loss", {"keypoint": np.linspace(1, 0, 12), "mouth": np.zeros(12)}, log=True),
        Curve("Mouth", {"avatar": np.sin(times), "driver": np.where(outcome == 2, np.nan, np.cos(times))}, "ratio"),
    ]
    return Page({"driver": images, "avatar": images}, [0.0, 0.2, 0.4], curves, times, outcome, np.array([[0.1, 0.2]]))


class Links(HTMLParser):
    """Collects every address in a page, and that tags close."""

    void = {"meta", "img", "br", "link"}

    def __init__(self):
        super().__init__()
        self.addresses, self.images, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                self.addresses.append(value)
            if tag == "img" and name == "src":
                self.images.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_loads_nothing_from_elsewhere_and_its_tags_close(page, tmp_path):
    report.write(tmp_path / "report.html", numbers(), page)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert links.open == []
    assert all(a.startswith(("data:image/", "#")) for a in links.addresses)
    assert not re.search(r"@import|url\((?!#)", text) and "<script" not in text
    assert len(links.images) == 6
    for uri in links.images:
        data = np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (report.TILE, report.TILE, 3)


def test_words_from_outside_cannot_become_markup(page):
    evil = "<script>alert(1)</script>\"'&"
    hostile = numbers(
        title=evil, warnings=[evil], facts={evil: evil}, recipe={"take": {evil: evil}}, versions={"torch": evil}
    )
    curves = [Curve(evil, {evil: np.arange(12.0), "b": np.arange(12.0)})]
    strip = {evil: page.strip["driver"]}
    text = report.html(hostile, Page(strip, page.strip_times, curves, page.times, page.outcome, missing=[evil]))
    assert "<script" not in text
    assert text.count("alert(1)") >= 7


def test_numbers_notes_and_warnings_are_shown(page):
    text = report.html(numbers(), page)
    assert "1.23 <small>%" in text
    assert "Not measured: no face network was given." in text
    assert "2 of 12 frames had no face and were held." in text
    assert "0.50 to 2.50" in text and "All frames" not in text
    assert "All frames" in report.html(numbers(held_out_frames=3), page)
    assert "steps" not in report.html(numbers(recipe=None), page)


def test_coverage_and_edits_are_inside_when_given(page):
    png = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    jpeg = cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    full = Page(page.strip, page.strip_times, page.curves, page.times, page.outcome, coverage=png, edit_sheet=jpeg,
                missing=["turn further left"])  # fmt: skip
    text = report.html(numbers(), full)
    assert "data:image/png;base64," in text and "turn further left" in text and "Edits this avatar offers" in text
    assert "What the scan covers" not in report.html(numbers(), page)


def test_curves_are_valid_svg_that_draws_every_line(page):
    svg = ElementTree.fromstring(report.curves_svg(page))
    words = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Loss", "Mouth (ratio)", "avatar", "driver", "converged", "no face"} <= words
    assert report.curves_svg(page) == report.curves_svg(page)  # the same numbers make the same picture


def test_a_single_frame_and_nothing_measured_still_make_a_page():
    one = Page({"driver": [np.zeros((8, 8, 3), np.uint8)]}, [0.0], [Curve("Loss", {"a": np.array([np.nan])}, log=True)],
               np.array([0.0]), np.array([2], np.uint8))  # fmt: skip
    assert "<svg" in report.html(numbers(), one)


@pytest.mark.parametrize("value, shown", [(None, "–"), (float("nan"), "–"), (float("inf"), "–"), (1.005, "1.00")])
def test_what_was_not_measured_is_a_dash(value, shown):
    assert report.number(value) == shown
