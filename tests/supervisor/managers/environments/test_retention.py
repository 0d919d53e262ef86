"""Environments that nobody has used for long go, and no others."""

from hypothesis import given
from hypothesis import strategies as st

from clipper.supervisor.managers.environments.plan import Kept, to_remove

KEPT = st.lists(st.builds(Kept, st.uuids().map(str), st.floats(0, 1e9), st.booleans()), max_size=12)


@given(KEPT, st.integers(0, 6))
def test_what_was_used_last_or_is_in_use_stays(kept: list[Kept], most: int) -> None:
    removed = set(to_remove(kept, most))
    gone = [one for one in kept if one.key in removed]
    stays = [one for one in kept if one.key not in removed]
    assert not any(one.runs for one in gone)
    assert len(stays) >= min(most, len(kept))
    # Beyond the bound nothing stays but what is in use.
    idle = sorted((one.used_at_s for one in stays if not one.runs), reverse=True)
    assert len(idle) <= most
    if gone and idle:
        assert min(idle) >= max(one.used_at_s for one in gone)
