"""A live server with three models, each of which answers a number of its own, and an application that selects."""

from typing import Any

from tests.supervisor.live_server import Server, answering
from tests.waiting import until

ROW = [1.0, 2.0]
APP: dict[str, Any] = {
    "name": "app",
    "slo_ms": 20_000,
    "links": [{"model": "one"}, {"model": "two"}, {"model": "three"}],
}
# The answer of each model to any input.
MODELS = {"one": 1, "two": 2, "three": 3}
NEVER_FORGETS = {"half_life": None}


def with_models(server: Server, *options: str) -> Server:
    server.start(*options)
    made = [
        server.deploy(name, answering(value), wait=False, input_type="float64[2]") for name, value in MODELS.items()
    ]
    assert [server.decided(each["model"], each["version"])["state"] for each in made] == ["ready"] * len(MODELS)
    return server


def with_application(server: Server, *options: str, **fields: Any) -> Server:
    with_models(server, *options)
    server.call("POST", "/applications", {**APP, **fields})
    return server


def learned(server: Server, context: str | None = None) -> dict[str, Any]:
    query = "" if context is None else f"?context={context}"
    found: dict[str, Any] = server.call("GET", f"/applications/app/policy{query}")
    return {**found, "models": {model["model"]: model for model in found["models"]}}


def until_learned(server: Server, observations: int) -> dict[str, Any]:
    """Whichever worker is asked; one reads now and then what the others have added."""

    def found() -> dict[str, Any] | None:
        now = learned(server)
        return now if now["observations"] == observations else None

    now: dict[str, Any] = until(found)
    return now


def teach(server: Server, label: int, times: int, **fields: Any) -> list[int]:
    """Ask, and tell that ``label`` was right; the ids of the queries."""
    ids = [server.predict("app", ROW, **fields)["query_id"] for _ in range(times)]
    answer = server.observe("app", observations=[{"query_id": id_, "label": label} for id_ in ids])
    assert answer.json()["observations"] == [{"observed": True, "duplicate": False}] * times
    return ids
