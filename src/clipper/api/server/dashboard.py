"""Serves the dashboard beside the management API: only files, which are the same on all servers of a version."""

from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send

from clipper.api.dashboard.files import ROOT, File, read_files
from clipper.api.server.statuses import BareAnswer, bare_answer, send_answer
from clipper.errors import MethodNotAllowed, NotFound

# A page may use only the dashboard's own files and this port's answers: no inline script or style, no other site, no
# frame around it. The last line makes the browser refuse any text that is to become HTML or a script.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: list[tuple[bytes, bytes]] = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # The browser revalidates its copy each time, so that all files are of the version that now runs.
    (b"cache-control", b"no-cache"),
]
_METHODS = ("GET", "HEAD")
# Paths that lead to the dashboard.
_ELSEWHERE = {"/": b"dashboard/", "/dashboard": b"dashboard/"}


class Dashboard:
    """An ASGI application: the dashboard, and ``api`` for all other paths. It serves ``paths`` to any caller."""

    def __init__(self, api: ASGIApp) -> None:
        self._api = api
        self._files = read_files()
        self.paths = frozenset(self._files) | _ELSEWHERE.keys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: Any = scope
        if request["type"] != "http" or not (request["path"] in self.paths or request["path"].startswith(ROOT)):
            await self._api(scope, receive, send)
            return
        answer = self._answer(request["method"], request["path"], request["headers"])
        await send_answer(send, request["method"], answer)

    def _answer(self, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> BareAnswer:
        if method not in _METHODS:
            refusal = bare_answer(MethodNotAllowed(f"{method} is not allowed on the dashboard: expected GET"))
            return refusal[0], [*refusal[1], (b"allow", b"GET, HEAD")], refusal[2]
        if (place := _ELSEWHERE.get(path)) is not None:
            return 307, [(b"location", place), (b"content-length", b"0"), *_HEADERS], b""
        file = self._files.get(path)
        if file is None:
            return bare_answer(NotFound(f"the dashboard has no file {path[:100]}: it begins at {ROOT}"))
        etag = (b"etag", file.etag.encode())
        if _has(file, headers):
            return 304, [etag, *_HEADERS], b""
        kind = (b"content-type", file.media_type.encode())
        length = (b"content-length", str(len(file.content)).encode())
        return 200, [kind, length, etag, *_HEADERS], file.content


def _has(file: File, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the browser has this file already. A proxy that compresses marks the tag as weak."""
    tags = b",".join(value for name, value in headers if name == b"if-none-match").decode("latin-1").split(",")
    return any(tag.strip().removeprefix("W/") in (file.etag, "*") for tag in tags)
