"""HTTP requests to the servers of addresses."""

import os

import httpx

from clipper.client.packaging.addresses import Address
from clipper.errors import NotFound, Unavailable

# A server that sends nothing for this long is given up.
STALL_TIMEOUT_S = 60.0


def web_client(address: Address) -> httpx.Client:
    """Return a client that follows redirects, and sends the header that ``HTTP_AUTHORIZATION`` says."""
    headers = {"User-Agent": "clipper", "Accept-Encoding": "identity"}
    if authorization := os.environ.get("HTTP_AUTHORIZATION"):
        headers["Authorization"] = authorization

    def check(request: httpx.Request) -> None:
        if address.scheme == "https" and request.url.scheme != "https":
            raise Unavailable(f"{address.shown} redirects to an address without encryption: expected https")

    hooks = {"request": [check]}
    return httpx.Client(headers=headers, follow_redirects=True, timeout=STALL_TIMEOUT_S, event_hooks=hooks)


def check_status(address: Address, status: int) -> None:
    """Raise NotFound or Unavailable if a server answers that it does not have an address, or refuses it."""
    if status in (404, 410):
        raise NotFound(f"there is no {address.shown}: the server answers {status}")
    if status in (401, 403):
        raise Unavailable(f"{address.shown} is refused with {status}: name credentials, such as HTTP_AUTHORIZATION")
