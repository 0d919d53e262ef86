from tests.works import Waiting, make_work


def test_joined_work_lives_as_long_as_its_most_patient_waiter() -> None:
    work = make_work(b"x", arrival_s=0.0, slo_s=1.0)
    work.join(Waiting(5.0))
    work.join(Waiting(2.0))
    assert work.deadline_s == 5.0
    assert len(work.waiters) == 3


def test_work_is_wanted_until_every_waiter_is_done() -> None:
    work = make_work(b"x")
    second = Waiting(1.0)
    work.join(second)
    work.waiters[0].done = True
    assert work.is_wanted
    second.done = True
    assert not work.is_wanted
