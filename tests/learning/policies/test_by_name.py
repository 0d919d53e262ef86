"""Policies and losses by name: what is found, and what each failure says."""

import sys
from pathlib import Path

import pytest

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.losses import Squared
from clipper.learning.policies.by_name import POLICIES, is_by_context, make_loss, make_policy, runs_own_code
from clipper.learning.policies.exp3 import Exp3

MODULE = """
from clipper.policies import Choice, Policy

class First(Policy):
    def __init__(self, limit=3):
        if limit < 0:
            raise RuntimeError("below zero")
        self.limit = limit
    def select(self, models, totals, query, random):
        return Choice(models[:1], (1.0,))

class Unfinished(Policy):
    pass

class Foreign:
    feedback = "all"
    def select(self, models, totals, query, random): ...

class Odd(First):
    feedback = "some"

def half(output, label):
    return 0.5

CONSTANT = 3
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with a user's modules: ``mine``, ``broken``, which raises, and ``json``, which Python has already."""
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("raise OSError('no such device')\n")
    (tmp_path / "json.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("mine", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return str(tmp_path)


def test_clippers_own_policies_take_their_parameters() -> None:
    policy = make_policy("exp3", {"eta": 0.5})
    assert isinstance(policy, Exp3)
    assert (policy.eta, policy.gamma) == (0.5, Exp3().gamma)


def test_choices_depend_on_what_comes_with_a_query_unless_there_is_no_way() -> None:
    by_nothing = {name for name in POLICIES if not is_by_context(name, 10.0)}
    assert by_nothing == {"single", "best_arm", "exp4", "ensemble", "stacking"}
    assert is_by_context("mine:First", 10.0), "a user's own policy sees all of a query"
    # Where contexts share nothing, each finds a winner of its own.
    assert {name for name in by_nothing if is_by_context(name, 0.0)} == {"best_arm"}


def test_a_users_policy_is_loaded_by_module_and_class(code: str) -> None:
    policy = make_policy("mine:First", {"limit": 7}, code)
    assert policy.limit == 7  # type: ignore[attr-defined]


OURS = "clipper.learning.policies.single:Single"


@pytest.mark.parametrize("name", ["mine:First", "subprocess:Popen", "os:system", OURS])
def test_nothing_is_taken_by_its_name_alone(code: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # Not even what could be imported.
    monkeypatch.syspath_prepend(code)
    with pytest.raises(InvalidArgument, match=r"comes without its code: .* entry point of the group clipper.policies"):
        make_policy(name, {"args": "touch x"})
    with pytest.raises(InvalidArgument, match=r"comes without its code: .* entry point of the group clipper.losses"):
        make_loss(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("subprocess:Popen", "comes without its code"),
        (OURS, "comes without its code"),
        ("../mine:First", "comes without its code"),
        (".mine:First", "comes without its code"),
        ("missing:First", "comes without its code"),
        (":First", "comes without its code"),
        ("json:First", "module 'json' has the name of one of Python's or Clipper's: rename it"),
    ],
)
def test_nothing_but_the_codes_own_modules_is_taken_with_code(code: str, name: str, message: str) -> None:
    before = sys.modules.get("json")
    with pytest.raises(InvalidArgument, match=message):
        make_policy(name, {}, code)
    assert sys.modules.get("json") is before


def test_whose_code_it_is() -> None:
    assert not runs_own_code("exp3", "zero_one")
    assert runs_own_code("first", "zero_one") and runs_own_code("m:P", "zero_one") and runs_own_code("exp3", "m:f")


def test_an_installed_package_offers_policies_and_losses_by_name(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(code)
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[clipper.policies]\nfirst = mine:First\n[clipper.losses]\nhalf = mine:half\n"
    )
    policy = make_policy("first")
    assert type(policy).__name__ == "First"
    assert make_loss("half")(b"1", b"2") == 0.5
    with pytest.raises(InvalidArgument, match="loss half takes no parameters"):
        make_loss("half", {"range": 1})


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("best", {}, r"policy 'best' is not known: expected single, .*, module:attribute with its code, or a name"),
        ("exp3", {"epsilon": 1}, "exp3: got an unexpected keyword argument 'epsilon': its parameters are eta, gamma"),
        ("single", {"eta": 1}, "single: .*: its parameters are none"),
        ("exp4", {"_combiner": 1}, "exp4: got an unexpected keyword argument '_combiner'"),
        ("broken:First", {}, "cannot import 'broken' of broken:First: OSError: no such device"),
        ("mine:Second", {}, "mine has no class or function 'Second'"),
        ("mine:CONSTANT", {}, "mine has no class or function 'CONSTANT'"),
        ("mine:First", {"limit": -1}, "mine:First cannot be made: RuntimeError: below zero"),
        ("mine:First", {"speed": 1}, "mine:First: got an unexpected keyword argument 'speed'"),
        ("mine:Unfinished", {}, "mine:Unfinished cannot be made: TypeError: .*abstract method '?select"),
        ("mine:Foreign", {}, "mine:Foreign is not a policy: it has no combine, observe: subclass Policy"),
        ("mine:Odd", {}, "mine:Odd.feedback is 'some': expected one of selected, all"),
    ],
)
def test_what_is_no_policy_is_told(code: str, name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make_policy(name, parameters, code)


def test_losses_by_name(code: str) -> None:
    assert make_loss("squared", {"range": 10}) == Squared(10)
    assert make_loss("mine:half", {}, code)(b"1", b"2") == 0.5


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("hinge", {}, "loss 'hinge' is not known: expected zero_one, absolute, squared, log, module:attribute with"),
        ("squared", {"range": 0}, "squared: range is 0: expected a number above 0"),
        ("mine:half", {"range": 1}, "loss mine:half takes no parameters: got range"),
        ("mine:third", {}, "mine has no class or function 'third'"),
    ],
)
def test_what_is_no_loss_is_told(code: str, name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make_loss(name, parameters, code)


OF_BEFORE = """
from clipper.policies import Choice, Policy

class Selects(Policy):
    def select(self, models, totals, context, random): ...

class Combines(Policy):
    def select(self, models, totals, query, random): ...
    def combine(self, choice, outputs, totals): ...

class Observes(Policy):
    def select(self, models, totals, query, random): ...
    def observe(self, choice, losses, totals): ...

class Rewarded(Observes):
    def observe(self, choice, losses, totals, query): ...
    def observe_reward(self, choice, losses, totals): ...

class Fine(Policy):
    def select(self, models, totals, _, random): ...
    def combine(self, *arguments): ...
    def observe(self, choice, losses, totals, query=None, more=()): ...
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Selects", r"Selects.select takes 'context' where the query is: expected select\(models, totals, query, "),
        (
            "Combines",
            r"Combines.combine takes \(choice, outputs, totals\): expected combine\(choice, outputs, tot",
        ),
        (
            "Observes",
            r"Observes.observe takes \(choice, losses, totals\): expected observe\(choice, losses, tot",
        ),
        (
            "Rewarded",
            r"Rewarded.observe_reward takes \(choice, losses, totals\): expected observe_reward\(cho",
        ),
    ],
)
def test_a_policy_from_before_queries_were_passed_is_refused(code: str, name: str, message: str) -> None:
    Path(code, "mine.py").write_text(OF_BEFORE)
    with pytest.raises(InvalidArgument, match=message):
        make_policy(f"mine:{name}", {}, code)
    make_policy("mine:Fine", {}, code)
