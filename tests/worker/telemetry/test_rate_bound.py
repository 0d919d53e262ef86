from clipper.worker.telemetry.watch import RateBound


def test_so_many_at_once_and_as_many_a_second() -> None:
    bound = RateBound(3)
    assert [bound.lets(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert (bound.left_out_since(), bound.left_out_since(), bound.left_out) == (2, 0, 2)
    assert [bound.lets(100.5) for _ in range(3)] == [True, False, False]
    assert sum(bound.lets(1000.0 + second / 100) for second in range(1000)) == 3 + 29


def test_a_clock_that_goes_back_lets_nothing_through() -> None:
    bound = RateBound(1)
    assert bound.lets(100.0)
    assert not bound.lets(50.0)
    assert not bound.lets(50.05)
