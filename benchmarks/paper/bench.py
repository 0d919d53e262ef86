"""What the figures share: deploying models, creating applications, and what a query and its answer look like."""

import base64
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.servers import ClipperServer
from benchmarks.paper.client import Address

MODELS = Path(__file__).parent / "models"
# Those that the rows of the other benchmarks share.
SHARED_MODELS = Path(__file__).parents[1] / "models"

# Applications answer it where no model has: a class that is none.
NO_CLASS = -1

# As many as start at once: each imports scikit-learn, which takes one core for a second.
DEPLOYING = 2


class Bench:
    """A running Clipper, driven by its command line and HTTP as its user would."""

    def __init__(self, server: ClipperServer, tell: Callable[[str], None]) -> None:
        self.server = server
        self.tell = tell

    @property
    def address(self) -> Address:
        return self.server.query_address()

    def deploy(self, models: Mapping[str, Path], *options: str) -> None:
        """Deploy model files, by name."""
        self._deploy({name: [str(path)] for name, path in models.items()}, options, SHARED_MODELS)

    def deploy_own_predict(self, models: Mapping[str, Path], *options: str) -> None:
        """Deploy scikit-learn's model files, by name, to be answered by its own ``predict`` at what that costs."""
        self.deploy_code("own_predict:OwnPredict", models, *options, folder=SHARED_MODELS)

    def deploy_code(self, target: str, data: Mapping[str, Path], *options: str, folder: Path = MODELS) -> None:
        """Deploy a class of a module in ``folder``, or a program, with the data of each model, by name."""
        self._deploy({name: [target, "--data", str(path)] for name, path in data.items()}, options, folder)

    def _deploy(self, models: Mapping[str, list[str]], options: tuple[str, ...], folder: Path) -> None:
        def deploy(name: str) -> None:
            self.server.run("deploy", name, *models[name], *options, folder=folder)

        with ThreadPoolExecutor(DEPLOYING) as pool:
            list(pool.map(deploy, models))

    def create(
        self,
        application: str,
        models: Iterable[str],
        *,
        slo_ms: float,
        policy: str = "single",
        parameters: Mapping[str, object] | None = None,
        **settings: object,
    ) -> str:
        """Create an application over these models, and return its name."""
        body = {
            "name": application,
            "slo_ms": slo_ms,
            "default_output": NO_CLASS,
            "policy": {"name": policy, "parameters": dict(parameters or {})},
            "links": [{"model": model} for model in models],
            **settings,
        }
        self.call("POST", "applications", body)
        return application

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> Any:
        """What the management API answers to a call.

        Raises:
            RuntimeError: it answers an error.
        """
        url, headers = f"{self.server.management_url}/{path}", self.server.authorization()
        answer = httpx.request(method, url, json=body, params=parameters, headers=headers, timeout=60)
        if answer.is_error:
            raise RuntimeError(f"{method} {path} answers {answer.status_code}: {answer.text}")
        return answer.json() if answer.content else None

    def remove(self, application: str, model: str) -> None:
        """Delete an application, and its model with its containers."""
        self.call("DELETE", f"applications/{application}")
        self.call("DELETE", f"models/{model}")

    def policy(self, application: str, context: str | None = None) -> dict[str, Any]:
        """What an application has learned."""
        parameters = None if context is None else {"context": context}
        learned: dict[str, Any] = self.call("GET", f"applications/{application}/policy", parameters=parameters)
        return learned


def encode_inputs(inputs: NDArray[Any]) -> list[bytes]:
    """Each row as JSON: a list, in which whole numbers have no fraction; pictures of uint8 as base64."""
    if inputs.dtype == np.uint8:
        return [b'"%b"' % base64.b64encode(row.tobytes()) for row in inputs]
    return [b"[" + b",".join(b"%g" % value for value in row) + b"]" for row in inputs.tolist()]
