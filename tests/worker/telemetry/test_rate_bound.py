from clipper.worker.telemetry.watch import RateBound


def test_so_many_at_once_and_so_many_a_second() -> None:
    bound = RateBound(10.0, 3)
    assert [bound.lets(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert bound.left_out_since() == 2
    assert bound.left_out_since() == 0
    assert [bound.lets(100.25) for _ in range(3)] == [True, True, False]
    assert sum(bound.lets(1000.0 + second / 100) for second in range(1000)) == 3 + 99


def test_a_clock_that_goes_back_lets_nothing_through() -> None:
    bound = RateBound(10.0, 1)
    assert bound.lets(100.0)
    assert not bound.lets(50.0)
    assert not bound.lets(50.05)
