"""Which calls make an application's links others, against what the server does with each."""

from hypothesis import given
from hypothesis import strategies as st

from clipper.cli.manifest.steps import link_calls
from clipper.settings.application import Link
from tests.cli.manifest.pretend_server import linked

LINKS = st.lists(
    st.builds(
        Link,
        st.sampled_from(["a", "b"]),
        st.sampled_from([None, "1", "2"]),
        st.booleans(),
        st.sampled_from([None, 1.0, "auto"]),
    ),
    max_size=6,
    unique_by=lambda link: (link.model, link.version),
)


@given(LINKS, LINKS)
def test_the_calls_lead_from_any_links_to_any_others(before: list[Link], after: list[Link]) -> None:
    links = tuple(before)
    for call in link_calls(before, after):
        links = linked(links, call)
        # At no time is there none, unless there was or shall be none.
        assert links or not after or not before
    assert set(links) == set(after)


@given(LINKS)
def test_the_same_links_need_no_call(links: list[Link]) -> None:
    assert link_calls(links, list(reversed(links))) == []


def test_the_only_link_of_a_model_moves_to_another_version_in_one_call() -> None:
    (call,) = link_calls([Link("m", "1")], [Link("m")])
    assert (call.name, call.link) == ("m", Link("m"))
