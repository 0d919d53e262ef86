"""Calls of the management API made of its own description and of a number: right ones, and nearly right ones."""

import json
from random import Random
from typing import Any
from urllib.parse import quote

import httpx

from tests.supervisor.live_server import NO_TLS, Server
from tests.waiting import TIMEOUT_S
from tests.worker.frontend.mutations import mutated, random_edits

# ``THERE`` names things that exist, for calls that change nothing; ``NAMES`` are unknown, or from an earlier try.
THERE = ["app", "m", "1", "worker-0", "m:1#1"]
NAMES = ["x", "y", "z", "2", "x" * 64, "..", ".", "a/b", "\0", "é", "\U0001f600", " ", "%2e%2e", "a:b", "-", "m:1"]
TEXTS = [*NAMES, "", "ab" * 32, "float64[2]", "float64[", "string", "single", "exp3", "zero_one", "os:system", "\ud800"]
TEXTS += ["x" * 5000, "read", "admin", "docker", "local", "image", "import", "file", "goodput", "../../x", "9" * 400]
NUMBERS: list[Any] = [0, 1, -1, 2, 0.5, 100, 1e300, -0.0, 5e-324, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, True]
ANYTHING: list[Any] = [None, [], {}, [[]], {"": None}, [1, "a"], {"name": "x"}, *NUMBERS, *TEXTS]
FRAGMENTS = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"NaN", b"\xff", b"\0", b"\\ud800", b"[" * 3000]
# Said with a reason: too much at once, or something that is not there now.
MAY_ANSWER = {502, 503, 504}


class Calling:
    """Calls of a server, all but ``POST /stop``."""

    def __init__(self, server: Server) -> None:
        self._server = server
        page = server.ask("GET", "/schema/openapi.json").json()
        self._schemas = page["components"]["schemas"]
        calls = ((method, path, call) for path, calls in page["paths"].items() for method, call in calls.items())
        self._calls = [one for one in calls if one[1] != "/stop"]
        assert len(self._calls) > 25

    def attempt(self, number: int) -> None:
        random = Random(number)
        method, path, call = random.choice(self._calls)
        names = NAMES + THERE if method in ("get", "head") else NAMES
        query = {}
        for parameter in call.get("parameters", ()):
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", quote(random.choice(names), safe=""))
            elif random.random() < 0.7:
                value = self._value(random, parameter["schema"], 0)
                query[parameter["name"]] = str(value).encode(errors="replace").decode()
        shown = random.choice([self._server.token] * 5 + [None, "x"])
        headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}
        content = None
        if body := call.get("requestBody", {}).get("content", {}).get("application/json"):
            content = json.dumps(self._value(random, body["schema"], 0)).encode()
            if random.random() < 0.2:
                content = mutated(content, random_edits(random, FRAGMENTS))
            headers["Content-Type"] = random.choice(["application/json"] * 9 + ["text/plain"])
        url = self._server.place.management_url + path
        answer = httpx.request(
            method, url, params=query, content=content, headers=headers, timeout=TIMEOUT_S, verify=NO_TLS
        )
        assert answer.status_code < 500 or answer.status_code in MAY_ANSWER, (method, url, content, answer.text)
        if answer.status_code >= 400 and method != "head":
            told = answer.json()
            assert told["error"] and told["cause"], (method, url, content, told)
        # A name .. leads elsewhere before it is sent: up to the dashboard, which is open.
        is_open = answer.request.url.path == "/" or path.startswith("/health/")
        assert shown == self._server.token or is_open or answer.status_code == 401, (method, url)

    def _value(self, random: Random, schema: dict[str, Any], depth: int) -> Any:
        """One that a schema may mean; now and then it is anything."""
        if random.random() < 0.08 or depth > 4:
            return random.choice(ANYTHING)
        if "$ref" in schema:
            return self._value(random, self._schemas[schema["$ref"].rpartition("/")[2]], depth)
        if choices := schema.get("oneOf") or schema.get("anyOf"):
            return self._value(random, random.choice(choices), depth + 1)
        if "enum" in schema:
            return random.choice(schema["enum"])
        match schema.get("type"):
            case "string":
                return random.choice(TEXTS)
            case "integer" | "number":
                return random.choice(NUMBERS)
            case "boolean":
                return random.random() < 0.5
            case "array":
                return [self._value(random, schema.get("items", {}), depth + 1) for _ in range(random.randrange(3))]
            case "object" if "properties" in schema:
                must = schema.get("required", ())
                return {
                    name: self._value(random, one, depth + 1)
                    for name, one in schema["properties"].items()
                    if random.random() < (0.95 if name in must else 0.4)
                }
        return random.choice(ANYTHING)
