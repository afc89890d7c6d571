"""A photo on the command line: a scan as any other, and a sentence of an engine that needs more."""

import json

import actor_avatar
import cv2
import frozen_engine
import pytest
import torch
from click.testing import CliRunner

from mystudio import engines
from mystudio.cli import cli
from mystudio.engines import personal
from mystudio.storage.artifacts import load
from mystudio.types import Avatar
from selfscan.io.pixels import to_uint8
from selfscan.types import Scan

CONSENT = ("--i-am-the-person-or-have-consent", "Ada Nobody", "--fictional")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A person whom the base drew, with room around the head."""
    image = to_uint8(actor_avatar.person(torch.zeros(1, 26))[0])[0]
    wide = cv2.copyMakeBorder(cv2.resize(image, (256, 256)), 64, 64, 64, 64, cv2.BORDER_REPLICATE)
    path = tmp_path_factory.mktemp("photo") / "me.jpg"
    cv2.imwrite(str(path), wide[..., ::-1])
    return path


def run(*words, code=0):
    result = CliRunner().invoke(cli, [*map(str, words), "--json"], prog_name="mystudio")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_a_photo_becomes_a_scan_that_personal_refuses_with_what_it_needs(photo, tmp_path):
    scan, out = tmp_path / "me.scan", tmp_path / "me.avatar"
    said = run("scan", photo, "-o", scan, *CONSENT, "--size", 64)
    assert said["images"] == 1 and said["consent"]["name"] == "Ada Nobody" and said["consent"]["fictional"]
    assert len(load(scan, Scan)) == 1 and (scan / "coverage.png").is_file()
    told = run("personalize", scan, "-o", out, code=1)["error"]
    assert f"personal needs a scan of at least {personal.NEEDED} images" in told and "holds 1;" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["me.scan"]


def test_an_engine_that_needs_one_image_makes_an_avatar_of_a_photo(photo, tmp_path, monkeypatch):
    monkeypatch.setitem(engines.ENGINES, "frozen", frozen_engine.__name__)
    scan, out = tmp_path / "me.scan", tmp_path / "me.avatar"
    run("scan", photo, "-o", scan, *CONSENT, "--size", 64)
    assert run("personalize", scan, "-o", out, "--engine", "frozen")["engine"] == "frozen"
    made = load(out, Avatar)
    assert made.consent.name == "Ada Nobody" and made.consent.fictional and made.neutral.isfinite().all()


def test_a_photo_needs_consent_too(photo, tmp_path):
    assert CliRunner().invoke(cli, ["scan", str(photo), "-o", str(tmp_path / "x")]).exit_code == 2
    assert not (tmp_path / "x").exists()
