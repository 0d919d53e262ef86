"""The facts of a soak that are findings."""

from collections.abc import Callable
from random import Random

from msgspec.structs import replace

from benchmarks.soak.facts import Asked, Disk, Done, Facts, Life, Taken
from benchmarks.soak.verdict import judge, rows

HOUR_S = 3600.0
TIMES_S = range(0, 3600, 10)


def life(name: str, rss_at: Callable[[float], float] = lambda at_s: 1e8, descriptors: int = 30) -> Life:
    return Life(name, 7, [Taken(at_s, int(rss_at(at_s)), 1, 1, descriptors, 3) for at_s in TIMES_S])


def facts(**others: object) -> Facts:
    held = Facts(
        duration_s=HOUR_S,
        saturation_per_s=2000.0,
        rate_per_s=1000.0,
        asked=(Asked("new inputs", 100, {"answered": 98, "default: timeout": 2}, 0, 1, 1.0, 9.0),),
        acts=(Done(30.0, "deploy_version"),),
        lives=(life("worker 0"), Life("changing:1#1", 8, [Taken(0.0, 1, 1, 1, 1, 1)])),
        disk=tuple(Disk(at_s, 1000, 10_000_000, 9) for at_s in TIMES_S),
        problems=(),
    )
    return replace(held, **others)


def test_a_server_that_held() -> None:
    assert judge(facts()) == []
    assert [row.name for row in rows(facts())] == ["worker 0"]


def test_memory_that_grows_is_named_with_its_process_and_pace() -> None:
    (found,) = judge(facts(lives=(life("worker 0"), life("supervisor", lambda at_s: 1e8 + 2e7 * at_s / HOUR_S))))
    assert found.startswith("supervisor (7): resident memory grew by 20.00 MB an hour at 1")


def test_what_is_in_use_may_not_grow_either() -> None:
    def keeping(**grown: int) -> Life:
        kept = life("worker 0")
        kept.taken = [
            replace(each, **{name: 10_000_000 + int(more * each.at_s / HOUR_S) for name, more in grown.items()})
            for each in kept.taken
        ]
        return kept

    assert judge(facts(lives=(keeping(blocks=0, malloc_bytes=100_000),))) == []
    blocks, malloc = judge(facts(lives=(keeping(blocks=1_000_000, malloc_bytes=2_000_000),)))
    assert blocks.startswith("worker 0 (7): what Python has in use grew by 1000000.00 blocks an hour")
    assert malloc.startswith("worker 0 (7): what malloc has given out grew by 2.00 MB an hour")


def test_a_container_may_keep_what_it_freed_but_not_have_more_in_use() -> None:
    def container(blocks: int, more_bytes: int) -> Life:
        kept = life("echo:1#1.g5", lambda at_s: 1e8 + 2e7 * at_s / HOUR_S)
        kept.taken = [
            replace(each, blocks=blocks, malloc_bytes=10_000_000 + int(more_bytes * each.at_s / HOUR_S))
            for each in kept.taken
        ]
        return kept

    assert judge(facts(lives=(container(300_000, 0),))) == []
    (found,) = judge(facts(lives=(container(300_000, 2_000_000),)))
    assert found.startswith("echo:1#1.g5 (7): what malloc has given out grew by 2.00 MB an hour")
    # One in another language tells nothing, so its resident memory is judged.
    (found,) = judge(facts(lives=(container(0, 0),)))
    assert found.startswith("echo:1#1.g5 (7): resident memory grew by 20.00 MB an hour")


def test_descriptors_may_come_and_go_but_not_grow() -> None:
    def leaking(more_per_hour: float) -> Life:
        grown = life("worker 0")
        grown.taken = [replace(each, descriptors=30 + int(more_per_hour * each.at_s / HOUR_S)) for each in grown.taken]
        return grown

    assert judge(facts(lives=(leaking(1),))) == []
    (found,) = judge(facts(lives=(leaking(12),)))
    assert "descriptors grew by 12.0" in found
    # Those of clients come and go: what is growth among few is none among many that move.
    random, moving = Random(1), leaking(2)
    moving.taken = [replace(each, descriptors=each.descriptors + random.randrange(40)) for each in moving.taken]
    assert judge(facts(lives=(moving,))) == []
    moving.taken = [replace(each, descriptors=each.descriptors + int(60 * each.at_s / HOUR_S)) for each in moving.taken]
    assert "descriptors grew by" in judge(facts(lives=(moving,)))[0]


def test_queries_without_an_answer_and_answers_of_5xx() -> None:
    asked = Asked("exp3", 100, {"answered": 95, "no answer": 2, "503 overloaded": 3}, 5, 0, 1.0, 9.0)
    starved = life("worker 0")
    starved.taken = [replace(each, waited_s=max(0.0, each.at_s - 1800) * 0.7) for each in starved.taken]
    assert judge(facts(asked=(asked,), lives=(starved, life("supervisor")))) == [
        "exp3: 5 of 100 queries had no answer, or one of 5xx; "
        "a worker waited for a processor for up to 70% of the time between two samples",
    ]


def test_disk_processes_acts_and_problems() -> None:
    disk = tuple(Disk(at_s, 300_000_000, 10_000_000 + at_s * 1000, 9 + at_s // 300) for at_s in TIMES_S)
    acts = (Done(30.0, "kill_worker", "no such process"),)
    home, logs, processes, act, problem = judge(facts(disk=disk, acts=acts, problems=("logs stand still",)))
    assert home.startswith("the home grew by 3.6 MB an hour")
    assert logs == "logs took more than 200 MB"
    assert processes.startswith("processes grew by 12.0 an hour")
    assert act == "kill_worker failed after 30 s: no such process"
    assert problem == "at the end: logs stand still"


def test_a_run_in_which_nothing_could_be_judged_has_not_held() -> None:
    assert judge(facts(lives=())) == ["no process lived for long enough to be judged"]
