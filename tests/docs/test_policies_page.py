"""docs/policies.md and docs/feedback.md against the policies and losses, and the example of docs/own-policies.md."""

import re
from pathlib import Path
from random import Random

import pytest

from clipper.learning.mathematics.ledger import DEFAULT_HALF_LIFE, Ledger
from clipper.learning.mathematics.losses import LOSSES
from clipper.learning.mathematics.totals import DEFAULT_PRIOR_WEIGHT, Totals, tally
from clipper.learning.policies.by_name import POLICIES, make_policy, parameters_of
from clipper.policies import Choice, Combined, JudgedQuery, Outlook, QueryView
from clipper.values.types import InputType

ROOT = Path(__file__).parents[2]
POLICIES_PAGE, FEEDBACK_PAGE, OWN_PAGE = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("policies", "feedback", "own-policies")
)
ROW = re.compile(r"^\| `(\w+)` \| (?:`(\w+)`)? ?\| ?`?([^|`]*)`? ?\|", re.MULTILINE)

EXAMPLE = "examples.policies.cheapest:Cheapest"
SECOND_OPINION = "examples.policies.second_opinion:SecondOpinion"


def documented() -> set[tuple[str, str, str]]:
    rows = ROW.findall(POLICIES_PAGE + FEEDBACK_PAGE)
    return {(name, parameter, default.strip()) for name, parameter, default in rows}


@pytest.mark.parametrize("name", [*POLICIES, *LOSSES])
def test_every_policy_and_loss_is_on_its_page_with_its_parameters(name: str) -> None:
    parameters = parameters_of((POLICIES | LOSSES)[name])  # type: ignore[operator]
    expected = {(name, parameter, shown(default)) for parameter, default in parameters.items()} or {(name, "", "")}
    assert {row for row in documented() if row[0] == name} == expected


def shown(default: object) -> str:
    return "none" if default is None else str(default)


def test_the_pages_list_nothing_that_is_gone() -> None:
    assert {name for name, _, _ in documented()} == {*POLICIES, *LOSSES}


def test_defaults_of_what_is_learned_are_those_of_the_code() -> None:
    assert f"`half_life` further observations ({DEFAULT_HALF_LIFE:,} unless set" in FEEDBACK_PAGE
    assert f"`prior_weight` observations ({DEFAULT_PRIOR_WEIGHT:.0f})" in FEEDBACK_PAGE


def test_the_example_is_the_one_that_is_shown() -> None:
    code = OWN_PAGE.split("```python\n")[1].split("```")[0]
    assert code in (ROOT / "examples" / "policies" / "cheapest.py").read_text()


def test_the_example_asks_the_cheapest_model_that_is_good_enough() -> None:
    policy, ledger = make_policy(EXAMPLE, {"max_loss": 0.2}, str(ROOT)), Ledger(None)
    choice = policy.select(("small", "large"), ledger.totals(), QueryView(), Random(0))
    assert choice == Choice(("small",), (1.0,))
    assert policy.combine(choice, {"small": b"3"}, ledger.totals(), QueryView()) == Combined(b"3", 1.0)
    for loss in (0.0, 1.0):
        losses = {"small": loss}
        increments = {**tally(choice.models, losses), **policy.observe(choice, losses, ledger.totals(), JudgedQuery())}
        ledger.add(ledger.entries(increments))
    assert policy.select(("small", "large"), ledger.totals(), QueryView(), Random(0)) == Choice(("large",), (1.0,))
    assert policy.select(("small",), ledger.totals(), QueryView(), Random(0)) == Choice(("small",), (1.0,))


def test_the_example_by_length_finds_who_is_right_for_long_texts() -> None:
    policy, ledger, random = make_policy("examples.policies.by_length:ByLength", {}, str(ROOT)), Ledger(None), Random(0)
    short, long = (JudgedQuery(row=text, input_type=InputType.parse("string")) for text in (b"short", b"long" * 50))
    for query, best in [(short, "one"), (long, "two")] * 200:
        choice = policy.select(("one", "two"), ledger.totals(), query, random)
        loss = {choice.models[0]: float(choice.models[0] != best)}
        ledger.add(ledger.entries(policy.observe(choice, loss, ledger.totals(), query)))
    for query, best in [(short, "one"), (long, "two")]:
        asked = [policy.select(("one", "two"), ledger.totals(), query, random).models for _ in range(100)]
        assert asked.count((best,)) > 90


def test_the_second_opinion_is_asked_where_the_first_is_serious() -> None:
    policy, totals, query = make_policy(SECOND_OPINION, {"serious": "true"}, str(ROOT)), Totals(), QueryView()
    choice = policy.select(("fast", "slow"), totals, query, Random(0))
    outlook = Outlook(0.1, {"slow": 0.01})

    def asked(choice: Choice, outputs: dict[str, bytes], outlook: Outlook = outlook) -> Choice | None:
        return policy.next(choice, outputs, totals, query, outlook, Random(0))

    both = Choice(("fast", "slow"), (0.0, 1.0))
    assert asked(choice, {"fast": b"true"}) == asked(choice, {}) == both
    assert asked(choice, {"fast": b"false"}) is asked(both, {"fast": b"true"}, Outlook(0.1, {})) is None
    assert policy.combine(both, {"fast": b"true", "slow": b"false"}, totals, query).output == b"false"
    assert policy.combine(both, {"fast": b"true"}, totals, query).output == b"true"
