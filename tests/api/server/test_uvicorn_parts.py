"""The parts of uvicorn that its documentation does not promise, and that the management port builds on.

A newer uvicorn that moves one of them fails here, with its name. ``pyproject.toml`` has the versions that may be.
"""

import inspect

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from clipper.api.server.server import Connection, ManagementServer

# Methods of ours that uvicorn does not call, but our other methods.
OWN = {"sweep", "_parse", "_refuse", "_head_without_offer"}


def methods(kind: type) -> set[str]:
    return {name for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("__")}


def test_each_method_replaces_one_of_uvicorns() -> None:
    assert [name for name in methods(Connection) - OWN if not hasattr(HttpToolsProtocol, name)] == []
    server = methods(ManagementServer) - {"secure", "_connect"}
    assert [name for name in server if not hasattr(uvicorn.Server, name)] == []


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            HttpToolsProtocol,
            ["config", "connections", "cycle", "flow", "headers", "loop", "parser", "pipeline", "transport"],
        ),
        (RequestResponseCycle, ["disconnected", "message_event", "more_body", "response_complete"]),
        (ServerState, ["connections"]),
        (uvicorn.Server, ["server_state"]),
    ],
)
def test_attributes_are_there_from_the_start(kind: type, names: list[str]) -> None:
    assert set(names) - set(kind.__init__.__code__.co_names) == set()


@pytest.mark.parametrize("name", ["_unset_keepalive_if_required", "on_url"])
def test_helpers_are_there(name: str) -> None:
    assert callable(getattr(HttpToolsProtocol, name))
