"""The table of attackers: what the server refuses, and that nothing changes by it."""

from __future__ import annotations

import os
import re
import stat
from itertools import product

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from studio_page import ADDRESS, OWN, PORT, SOCKET, files_of

from mystudio.web import guard as guards
from mystudio.web.guard import BURST, Allowance, read_secret
from mystudio.web.server import guarded
from mystudio.web.studio import Studio

#: Host headers of a page that resolves its own name to this machine, and other strangers
HOSTS = [
    "evil.example", f"evil.example:{PORT}", f"127.0.0.1.evil.example:{PORT}", f"localhost.evil.example:{PORT}",
    "127.0.0.1", "127.0.0.1:80", f"127.0.0.1:{PORT}0", f"10.0.0.5:{PORT}", f"0.0.0.0:{PORT}", f"user@127.0.0.1:{PORT}",
    f"[::2]:{PORT}", "", ":", f":{PORT}", f"127.0.0.1:+{PORT}", "127.0.0.1:८७६५", f"127.0.0.1:{PORT}/x",
]  # fmt: skip
ORIGINS = [
    "http://evil.example", "null", "http://127.0.0.1", f"http://127.0.0.1:{PORT + 1}", f"https://127.0.0.1:{PORT}",
    f"http://localhost:{PORT}", f"http://127.0.0.1:{PORT}.evil.example", f"http://evil.example/{ADDRESS}", "", "*",
]  # fmt: skip


def test_a_foreign_host_is_refused_also_with_the_cookie(visitor):
    for host in HOSTS:
        answer = visitor.get("/", headers={"Host": host.encode()})
        assert answer.status_code == 421 and "mystudio" not in answer.text, host


def test_the_names_of_this_machine_are_taken(stranger, guard):
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        answer = stranger.get("/", params={"token": guard.token}, headers={"Host": f"{name}:{PORT}"})
        assert answer.status_code == 303, name


def test_a_server_for_the_network_takes_addresses_but_no_names(studio):
    guard = guarded(studio, PORT, "0.0.0.0")
    stranger = TestClient(guard, base_url=ADDRESS, follow_redirects=False)
    ask = {"params": {"token": guard.token}}
    assert stranger.get("/", headers={"Host": f"10.0.0.5:{PORT}"}, **ask).status_code == 303
    assert stranger.get("/", headers={"Host": f"evil.example:{PORT}"}, **ask).status_code == 421


def test_another_origin_changes_nothing(visitor, studio):
    before = files_of(studio.folder)
    for origin in ORIGINS:
        answer = visitor.post("/people", json={"name": "Eve", "consent": True}, headers={"Origin": origin})
        assert answer.status_code == 403 and files_of(studio.folder) == before, origin


def test_a_change_needs_an_origin(visitor, studio):
    assert visitor.post("/people", json={"name": "Eve", "consent": True}).status_code == 403
    assert not list(studio.people)


def test_another_page_cannot_embed_or_read(visitor):
    """A page at another port of this machine is of the same site, and the browser sends the cookie."""
    ways = [("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe")]
    for site, (mode, goal) in product(("cross-site", "same-site"), ways):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": goal}
        assert visitor.get("/", headers=headers).status_code == 403, headers


def test_a_link_from_elsewhere_opens_the_page(visitor):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert visitor.get("/", headers=headers).status_code == 200


def test_without_the_cookie_nothing_is_shown(stranger):
    for path in ("/", "/static/app.js", "/jobs", "/m/demo/driver.mp4", "/verify", "/nothing"):
        assert stranger.get(path).status_code == 401, path
        assert stranger.post(path, headers=OWN).status_code == 401, path


def test_a_wrong_token_opens_nothing(stranger):
    for token in ("", "0" * 48, "é", "a" * 10_000, "\x00"):
        answer = stranger.get("/", params={"token": token})
        assert answer.status_code == 401 and "set-cookie" not in answer.headers, token
    stranger.cookies.set(f"mystudio_{PORT}", "0" * 48)
    assert stranger.get("/").status_code == 401


def test_the_token_is_no_cookie_and_the_cookie_no_token(stranger, guard, visitor):
    cookie = visitor.cookies[f"mystudio_{PORT}"]
    stranger.cookies.set(f"mystudio_{PORT}", guard.token)
    assert stranger.get("/").status_code == 401
    stranger.cookies.clear()
    assert stranger.get("/", params={"token": cookie}).status_code == 401


def test_the_cookie_is_kept_from_scripts_and_other_sites_and_the_token_leaves_the_address(stranger, guard):
    answer = stranger.get("/jobs", params={"token": guard.token, "a": "b&c"})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "domain" not in cookie
    assert answer.headers["location"] == "/jobs?a=b%26c" and guard.token not in answer.headers["location"]


def test_the_token_leads_nowhere_else(stranger, guard):
    for path in ("//evil.example/", "/\\evil.example/", "///evil.example"):
        answer = stranger.get(f"{ADDRESS}{path}", params={"token": guard.token})
        assert re.match(r"/[^/\\]", answer.headers["location"]), path


def test_a_websocket_needs_the_pages_own_origin(visitor):
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        with pytest.raises(WebSocketDisconnect), visitor.websocket_connect(SOCKET, headers=headers):
            pass


def test_a_websocket_needs_the_cookie(stranger):
    with pytest.raises(WebSocketDisconnect), stranger.websocket_connect(SOCKET, headers=OWN):
        pass


def test_the_page_runs_no_script_of_its_text(client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|javascript:|\sstyle=", answer.text)
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"


def test_refusals_carry_the_headers_too(stranger):
    assert "default-src 'none'" in stranger.get("/").headers["content-security-policy"]


def test_too_many_requests_are_refused_until_time_has_passed(monkeypatch):
    now = 0.0
    monkeypatch.setattr(guards.time, "monotonic", lambda: now)
    allowance = Allowance(seen=0.0)
    assert sum(allowance.take() for _ in range(2000)) == BURST
    now = 1.0
    assert sum(allowance.take() for _ in range(2000)) == guards.PER_SECOND


def test_the_secret_is_the_owners_alone_and_outlives_a_restart(tmp_path):
    first, second = read_secret(tmp_path), read_secret(tmp_path)
    assert first == second and len(first) >= 32
    if os.name != "nt":
        assert stat.S_IMODE((tmp_path / ".secret").stat().st_mode) == 0o600
        (tmp_path / ".secret").chmod(0o644)  # others may have read it
        assert read_secret(tmp_path) != first
    (tmp_path / ".secret").write_text("short")
    assert len(read_secret(tmp_path)) >= 32


def test_a_tab_stays_open_over_a_restart(tmp_path):
    cookies = None
    for _ in range(2):
        studio = Studio(tmp_path)
        guard = guarded(studio, PORT)
        client = TestClient(guard, base_url=ADDRESS, cookies=cookies)
        if cookies is None:
            client.get("/", params={"token": guard.token})
            cookies = client.cookies
        assert client.get("/").status_code == 200
        studio.close()
