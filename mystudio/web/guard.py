"""Who may talk to the server: its token, the Host and Origin of a request, its rate, and the headers of answers.

Other pages in the same browser, other programs on the machine and the network can all send requests to a port. Only a
browser that was opened with the printed address gets an answer.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECRET = ".secret"  # file in the studio's folder; only its owner can read it
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SAFE = ("GET", "HEAD")
BURST, PER_SECOND = 600.0, 100.0  # requests at once, and refilled each second
YEAR = 31_536_000  # s
#: a page may load what this server gives, and nothing else; there are no inline scripts or styles
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=(), display-capture=()",
}


@dataclass
class Allowance:
    """Requests that may still come: a bucket that fills with time."""

    left: float = BURST
    seen: float = field(default_factory=time.monotonic)

    def take(self) -> bool:
        """Count a request; False = too many."""
        now = time.monotonic()
        self.left = min(BURST, self.left + PER_SECOND * (now - self.seen))
        self.seen = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


def read_secret(folder: Path) -> str:
    """Return the studio's secret, made at first use: open tabs keep working after a restart of the server."""
    file = folder / SECRET
    try:
        found = file.read_text("ascii").strip()
        if len(found) >= 32 and not file.stat().st_mode & 0o077:
            return found
        file.unlink()
    except (OSError, ValueError):
        pass
    made = secrets.token_urlsafe(32)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as out:
        out.write(made)
    return made


class Guard:
    """Checks every request and websocket before the application sees it.

    Args:
        app: the application. secret: of ``read_secret``. port: of the server.
        host: where the server listens; an address other than loopback admits Hosts that are plain addresses.
    """

    def __init__(self, app: ASGIApp, secret: str, port: int, host: str = "127.0.0.1"):
        self._app, self._port = app, port
        self._open = host not in LOOPBACK
        self._cookie = f"mystudio_{port}"
        self._token = _derive(secret, "token")
        self._pass = _derive(secret, "cookie")
        self._allowance = Allowance()

    @property
    def token(self) -> str:
        """The token of the printed address."""
        return self._token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self._allowance.take():
            return PlainTextResponse("Too many requests: wait a moment and try again.", 429)
        if not self._is_our_host(headers.get("host", "")):
            return PlainTextResponse("This address is not the studio's: open the address that it printed.", 421)
        safe = scope["type"] == "http" and scope["method"] in SAFE
        if not _is_our_origin(headers, safe):
            return PlainTextResponse("Another page sent this request: use the studio's own page.", 403)
        if scope["type"] == "http" and scope["method"] == "GET" and (answer := self._admitted(scope)):
            return answer
        if not _same(_cookies(headers).get(self._cookie, ""), self._pass):
            return _locked()
        return None

    def _is_our_host(self, host: str) -> bool:
        name, port = _split(host)
        if port != self._port:
            return False
        return name in LOOPBACK or self._open and _is_address(name)

    def _admitted(self, scope: Scope) -> Response | None:
        """The token of an address becomes a cookie; the address that stays in the browser is without it."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if "token" not in query:
            return None
        if not _same(query.pop("token")[0], self._token):
            return _locked()
        path = "/" + scope["path"].lstrip("/\\")  # "//host" would lead elsewhere
        answer = RedirectResponse(path + (f"?{urlencode(query, doseq=True)}" if query else ""), 303)
        answer.set_cookie(self._cookie, self._pass, max_age=YEAR, httponly=True, samesite="strict", path="/")
        return answer


def _locked() -> Response:
    return PlainTextResponse(
        "The studio is locked: open the whole address that it printed in the terminal, with its token.", 401
    )


def _derive(secret: str, role: str) -> str:
    return hmac.new(secret.encode(), role.encode(), "sha256").hexdigest()[:48]


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _split(host: str) -> tuple[str, int]:
    """Name and port of a Host header; port 0 if it is none."""
    name, _, port = host.rpartition(":")
    if not name or not port.isascii() or not port.isdecimal() or len(port) > 5:
        return host.strip("[]").lower(), 0 if ":" in host[1:] else 80
    return name.removeprefix("[").removesuffix("]").lower(), int(port)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_our_origin(headers: Headers, safe: bool) -> bool:
    """Whether a request comes from the studio's own page, or is a person's visit.

    A page at another port of this machine is of the same site, so its requests carry the cookie, too.
    """
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return safe and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    origin = headers.get("origin")
    return safe if origin is None else origin == f"http://{headers.get('host', '')}"


def _cookies(headers: Headers) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return {name: value for name, _, value in pairs}


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Content-Security-Policy", POLICY)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
