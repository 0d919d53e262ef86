import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from clipper.supervisor.keepers.keepers import Keepers
from tests.descriptors import no_descriptors
from tests.supervisor.live_server import APP, NO_TLS, Server
from tests.waiting import TIMEOUT_S, until, until_async


def keeping(check: Callable[[Keepers], Awaitable[None]]) -> None:
    async def test() -> None:
        keepers = Keepers(retry_s=0.01, recovered_after_s=0.1)
        await check(keepers)
        async with asyncio.timeout(TIMEOUT_S):
            await keepers.stop()

    asyncio.run(asyncio.wait_for(test(), TIMEOUT_S))


def test_what_fails_is_told_and_begun_again_until_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    runs: list[str] = []

    async def fails_at_first() -> None:
        runs.append("run")
        if len(runs) < 4:
            raise OSError(24, "Too many open files")
        await asyncio.sleep(3600)

    async def check(keepers: Keepers) -> None:
        keepers.start("sweeping", fails_at_first)
        await until_async(keepers.problems)
        assert keepers.problems() == ["sweeping failed and is tried again: OSError: [Errno 24] Too many open files"]
        await until_async(lambda: not keepers.problems())
        assert len(runs) == 4

    keeping(check)
    # Said once, not at each try.
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "sweeping failed and is tried again"
    ]


def test_what_is_repeated_goes_on_after_a_failure() -> None:
    looks: list[str] = []

    def look() -> None:
        looks.append("look")
        if len(looks) == 2:
            raise OSError("no")

    async def look_too() -> None:
        looks.append("too")

    async def check(keepers: Keepers) -> None:
        keepers.repeat("looking", look, 0.0)
        keepers.repeat("looking too", look_too, 0.0)
        await until_async(lambda: looks.count("look") > 3 and looks.count("too") > 3)

    keeping(check)


def test_what_is_done_is_not_begun_again() -> None:
    runs: list[str] = []

    async def ends() -> None:
        runs.append("run")

    async def check(keepers: Keepers) -> None:
        keepers.start("pruning", ends)
        await asyncio.sleep(0.05)
        assert runs == ["run"] and keepers.problems() == []

    keeping(check)


# Over its bound with the second query.
TAKES = """
kept = []
def predict(inputs):
    kept.append(b"x" * (90 << 20))
    return [1.0 for _ in inputs]
"""


@pytest.mark.long
def test_a_server_without_descriptors_tells_what_stands_still_and_goes_on(server: Server) -> None:
    server.start()
    server.deploy("m", TAKES, input_type="float64[2]", memory_bytes=150 << 20, cache=False)
    server.call("POST", "/applications", APP)
    assert server.process is not None
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(
        base_url=server.place.management_url, headers=headers, timeout=TIMEOUT_S, verify=NO_TLS
    ) as client:

        def problems() -> str:
            return "; ".join(client.get("/status").json()["problems"])

        assert problems() == ""
        with no_descriptors(server.process.pid):
            until(lambda: "holding replicas to their bounds" in problems() and "bounding logs" in problems())
            assert "Too many open files" in problems()
            # It is no reason to take the server out of service.
            assert client.get("/health/ready").status_code == 200
            assert [server.predict("app", [1, 2])["output"] for _ in range(2)] == [1.0, 1.0]
        until(lambda: "its bound is 150 MiB" in str(client.get("/replicas").json()[0]["last_error"]))
        until(lambda: problems() == "")
