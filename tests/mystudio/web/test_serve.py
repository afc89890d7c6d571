"""The command: where it listens, and what it says where it cannot."""

from __future__ import annotations

import socket

import pytest

from mystudio.errors import StudioError
from mystudio.web.serve import serve


def test_a_port_in_use_and_a_foreign_address_are_told_and_nothing_is_made(tmp_path):
    folder = tmp_path / "studio"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for host, port in (("127.0.0.1", taken.getsockname()[1]), ("192.0.2.1", 0)):
            with pytest.raises(StudioError, match="choose another --port"):
                serve(folder, host, port, False, False, print)
    assert not folder.exists()
