"""Tests for processes on this machine alone; test_manager.py has the tests for every kind."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from clipper.base.processes import limits
from clipper.base.processes.limits import CONTAINER_NICENESS
from clipper.supervisor.managers.caller import Sample
from clipper.supervisor.managers.environments.provider import EnvironmentProvider
from clipper.supervisor.managers.launcher import slot_name
from clipper.supervisor.managers.local.launcher import LocalLauncher
from clipper.supervisor.managers.logs import tail
from clipper.supervisor.managers.reconcile.plan import Slot
from tests.event_loops import ShiftedLoop
from tests.manager_bench import SLOT, SUM, Bench, run
from tests.waiting import until_async


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_a_process_works_in_a_folder_of_its_own_and_is_nice(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM))
        pid = await bench.ready()
        assert Path(f"/proc/{pid}/cwd").readlink() == bench.facilities.scratch / slot_name(SLOT)
        niceness = max(CONTAINER_NICENESS, os.getpriority(os.PRIO_PROCESS, 0))  # what runs the tests may be nicer
        assert os.getpriority(os.PRIO_PROCESS, pid) == niceness
        # Where the kernel shares out by session, as it may be told not to.
        groups = Path(f"/proc/{pid}/autogroup")
        assert not groups.exists() or groups.read_text().endswith(f"nice {niceness}\n")
        await bench.manager.stop_all()

    run(test())


def test_folders_of_sockets_whose_containers_have_no_record_are_removed(bench: Bench) -> None:
    (bench.facilities.sockets / "m7").mkdir()
    assert asyncio.run(bench.launcher.orphans()) == []
    assert not (bench.facilities.sockets / "m7").exists()


def test_a_python_that_is_not_there_is_a_start_failure(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM, python="/nowhere/python3"))
        await until_async(lambda: bench.status.phase == "dead")
        assert bench.status.start_failure is not None
        assert "/nowhere/python3" in bench.status.start_failure.reason

    run(test())


TELLS = """
import os, resource, tempfile
import numpy, threadpoolctl
print("threads", {pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
print("cores", sorted(os.sched_getaffinity(0)))
print("gpus", os.environ.get("CUDA_VISIBLE_DEVICES"))
print("files", resource.getrlimit(resource.RLIMIT_NOFILE)[1], "core", resource.getrlimit(resource.RLIMIT_CORE)[1])
print("temporary", tempfile.gettempdir() == os.getcwd())
"""


def told(bench: Bench, slot: Slot) -> dict[str, str]:
    lines = [line.partition(" ") for line in tail(bench.manager.log_path(slot), 99)]
    return {name: value for name, _, value in lines}


def test_what_a_replica_gets_of_the_machine(bench: Bench) -> None:
    cores = limits.machine_cores()
    second = Slot("sum", "1", 2)
    # Of the pools of threads numpy has one and scikit-learn another, which takes a second to import.
    with_another_pool = "import sklearn.linear_model" + TELLS + SUM
    wanted: list[tuple[Slot, dict[str, Any], str, str]] = [
        (SLOT, {"cpus": 0.5, "gpus": "0,3"}, "{1}", "0,3"),
        (second, {"cpus": 1}, "{1}", ""),
        (Slot("sum", "2", 1), {"gpus": "all"}, "{1}", "None"),
        (Slot("sum", "3", 1), {"cpus": len(cores)}, f"{{{len(cores)}}}", ""),
    ]

    async def test() -> None:
        for slot, fields, _, _ in wanted:
            code = with_another_pool if fields.get("cpus") in (0.5, len(cores)) else TELLS + SUM
            bench.manager.start(slot, bench.model(code, **fields))
        await until_async(lambda: all(status.phase == "ready" for status in bench.manager.slots()))
        for slot, _, threads, gpus in wanted:
            said = told(bench, slot)
            assert (said["threads"], said["gpus"]) == (threads, gpus)
            assert (said["files"], said["temporary"]) == (f"{limits.MAX_OPEN_FILES} core 0", "True")
        # One core each, and another one as long as there are any; all where nothing was asked for, or all.
        pinned = [told(bench, slot)["cores"] for slot in (SLOT, second)]
        assert pinned == [f"[{cores[0]}]", f"[{cores[1 % len(cores)]}]"]
        assert {told(bench, slot)["cores"] for slot, *_ in wanted[2:]} == {str(cores)}
        await bench.manager.stop_all()

    run(test())


def test_more_gpus_than_there_are_is_a_start_failure(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM, gpus="64"))
        await until_async(lambda: bench.status.phase == "dead")
        assert "it asks for 64 GPUs, and this machine has" in str(bench.status.last_error)

    run(test())


@pytest.fixture(params=["given", "remembered", "made"])
def warming(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """One that has a sample to warm up with."""
    bench = Bench(tmp_path, sample=Sample(bytes(8), request.param, max_batch=1024))
    yield bench
    bench.close()


def test_a_model_that_dies_over_its_warm_up_does_not_come_up(warming: Bench) -> None:
    async def test() -> None:
        warming.manager.start(SLOT, warming.model("import os\ndef predict(inputs): os._exit(9)"))
        assert "exited with code 9 over the warm-up sample" in await warming.until_dead()
        assert warming.samples.deaths == [1]
        assert warming.status.start_failure is not None
        warming.leaves_nothing()

    run(test())


@pytest.mark.long
def test_a_model_that_computes_while_it_loads_has_twice_the_time(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model("while True: pass", start_timeout_s=4.0))
        assert "within its start_timeout_s of 4 s, and longer, as it was busy: raise it" in await bench.until_dead()
        bench.leaves_nothing()

    run(test())


def test_a_model_that_hangs_over_its_warm_up_does_not_come_up(warming: Bench) -> None:
    async def test() -> None:
        hangs = "import time\ndef predict(inputs):\n    print('asked')\n    time.sleep(600)"
        warming.manager.start(SLOT, warming.model(hangs, start_timeout_s=100.0))
        await until_async(lambda: "asked" in tail(warming.manager.log_path(SLOT), 9))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        loop.advance(100.0)
        how = {
            "given": "within its start_timeout_s of 100 s",
            "remembered": "with the input of a recent query in time",
            "made": "with rows that Clipper made in time",
        }[warming.samples.origin]
        assert f"did not finish its warm-up {how}" in await warming.until_dead()
        # The next start sends none, whose batch of one row took too long.
        assert warming.samples.deaths == [1]
        assert warming.status.start_failure is not None
        warming.leaves_nothing()

    with asyncio.Runner(loop_factory=ShiftedLoop) as runner:
        runner.run(test())


def test_a_failure_on_an_invented_row_says_nothing_against_the_model(warming: Bench) -> None:
    async def test() -> None:
        warming.manager.start(SLOT, warming.model("def predict(inputs): raise ValueError('too few features')"))
        if warming.samples.origin == "given":
            assert "failed on its sample: ValueError: too few features" in await warming.until_dead()
            assert warming.samples.deaths == []
        else:
            await until_async(lambda: warming.status.phase == "ready")
            await warming.manager.stop_all()

    run(test())


def test_where_nothing_is_forked_all_keepers_go_on(bench: Bench) -> None:
    """The actor of a replica on a node takes one that returns for one that has failed, and kills its container."""

    async def test() -> None:
        settings = structs.replace(bench.facilities.settings, start_method="spawn")
        facilities = replace(bench.facilities, settings=settings)
        launcher = LocalLauncher(facilities, EnvironmentProvider(bench.processes, bench.path, bench.path))
        keepers = [asyncio.ensure_future(run()) for run in launcher.keepers().values()]
        done, going_on = await asyncio.wait(keepers, timeout=0.1)
        for keeper in going_on:
            keeper.cancel()
        assert keepers and not done

    run(test())
