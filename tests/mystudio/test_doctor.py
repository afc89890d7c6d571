"""`mystudio doctor --fetch`: the one download, with a checksum."""

import functools
import hashlib
import http.server
import threading

import pytest
import torch

from mystudio import doctor
from mystudio.errors import StudioError
from selfscan.perceptual.lpips_layers import HUB_FILES, convolutions
from selfscan.perceptual.metric import perceptual_name


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A server of one backbone, in the place of torchvision's."""
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save({f"features.{k}": v for k, v in convolutions("squeeze").state_dict().items()}, folder / "net")
    content = (folder / "net").read_bytes()
    name = f"squeezenet-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / "net").rename(folder / name)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setitem(HUB_FILES, "squeeze", name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(doctor, "BACKBONES", f"http://127.0.0.1:{server.server_port}/")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder / name
        server.shutdown()


def test_a_fetched_backbone_is_used_from_then_on(host):
    assert perceptual_name() == "lpips-face"
    path = doctor.fetch()
    assert path.read_bytes() == host.read_bytes() and perceptual_name() == "lpips-squeeze"
    host.unlink()
    assert doctor.fetch() == path  # there already: nothing is downloaded


@pytest.mark.parametrize("fault", ["other content", "missing", "no server"])
def test_a_failed_download_leaves_nothing(host, fault, monkeypatch, tmp_path):
    if fault == "other content":
        host.write_bytes(host.read_bytes()[:-1] + b"?")
    elif fault == "missing":
        host.unlink()
    else:
        monkeypatch.setattr(doctor, "BACKBONES", "http://127.0.0.1:9/")
    with pytest.raises(StudioError, match="could not be downloaded .*; try again, or copy it to"):
        doctor.fetch()
    assert perceptual_name() == "lpips-face" and not [p for p in (tmp_path / "home").rglob("*") if p.is_file()]
