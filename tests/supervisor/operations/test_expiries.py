"""Which keys and tokens are told of, and when."""

import pytest

from clipper.errors import InvalidArgument
from clipper.supervisor.operations.tokens import check_expiry, expiry_problems, next_expiry
from clipper.supervisor.registry.records import KeyRecord, TokenRecord

DAY_S = 86400.0
BEGAN_S = 1_700_000_000.0


def key(name: str, life_s: float | None) -> KeyRecord:
    return KeyRecord(name, "digest", created_at=BEGAN_S, expires_at=None if life_s is None else BEGAN_S + life_s)


@pytest.mark.parametrize(
    ("life_s", "age_s", "told"),
    [
        (None, 1000 * DAY_S, None),
        (90 * DAY_S, 0.0, None),
        (90 * DAY_S, 82 * DAY_S, None),
        (90 * DAY_S, 84 * DAY_S, "expires in 6 days"),
        (90 * DAY_S, 89 * DAY_S, "expires in 24 hours"),
        (90 * DAY_S, 90 * DAY_S, "has expired, and is refused"),
        (90 * DAY_S, 96 * DAY_S, "has expired, and is refused"),
        (90 * DAY_S, 98 * DAY_S, None),
        # One for a day is no problem as it is made, nor for long after its end.
        (DAY_S, 0.0, None),
        (DAY_S, 0.8 * DAY_S, "expires in 5 hours"),
        (DAY_S, 1.2 * DAY_S, "has expired, and is refused"),
        (DAY_S, 1.3 * DAY_S, None),
    ],
)
def test_a_key_is_told_of_for_a_while_before_and_after(life_s: float | None, age_s: float, told: str | None) -> None:
    problems = expiry_problems([key("web", life_s)], [], BEGAN_S + age_s)
    assert len(problems) == (told is not None)
    assert told is None or problems[0].startswith(f"key 'web' {told} (20")


def test_many_make_a_few_lines_and_the_first_to_expire_comes_first() -> None:
    keys = [key(f"k{number:02}", (100 - number) * 60.0) for number in range(20)]
    token = TokenRecord("ci", "admin", "digest", BEGAN_S, BEGAN_S + 100.0)
    problems = expiry_problems(keys, [token], BEGAN_S + 80.0 * 60)
    assert [line.split()[1] for line in problems[:5]] == ["'k19'", "'k18'", "'k17'", "'k16'", "'k15'"]
    assert problems[5].endswith("more keys expire, too: clipper key list shows when")
    assert expiry_problems([], [token], BEGAN_S + 90.0)[0].startswith("token 'ci' expires in 10 seconds")


def test_the_next_to_expire_is_one_that_is_still_valid() -> None:
    keys = [key("never", None), key("gone", 10.0), key("soon", 30.0), key("later", 50.0)]
    assert next_expiry(keys, BEGAN_S + 20.0) == BEGAN_S + 30.0
    assert next_expiry(keys, BEGAN_S + 50.0) is None


@pytest.mark.parametrize("at_s", [0.0, -1.0, 1.0, 1e13, float("inf"), float("nan")])
def test_a_time_that_cannot_be_meant_is_refused(at_s: float) -> None:
    with pytest.raises(InvalidArgument, match="expires_at"):
        check_expiry(at_s)
    check_expiry(None)
