"""Policies and losses by name: what is found, and what each failure says."""

import sys
from pathlib import Path

import pytest

from clipper.errors import InvalidArgument
from clipper.selection.learning.losses import Squared
from clipper.selection.policies.exp3 import Exp3
from clipper.selection.policies.registry import make_loss, make_policy

MODULE = """
from clipper.selection.policies import Choice, Policy

class First(Policy):
    def __init__(self, limit=3):
        if limit < 0:
            raise RuntimeError("below zero")
        self.limit = limit
    def select(self, models, totals, context, random):
        return Choice(models[:1], (1.0,))

class Unfinished(Policy):
    pass

class Foreign:
    feedback = "all"
    def select(self, models, totals, context, random): ...

class Odd(First):
    feedback = "some"

def half(output, label):
    return 0.5

CONSTANT = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's modules, importable for one test: ``mine``, and ``broken``, which raises."""
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("raise OSError('no such device')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mine", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_clippers_own_policies_take_their_parameters() -> None:
    policy = make_policy("exp3", {"eta": 0.5})
    assert isinstance(policy, Exp3)
    assert (policy.eta, policy.gamma) == (0.5, Exp3().gamma)


def test_a_users_policy_is_loaded_by_module_and_class() -> None:
    policy = make_policy("mine:First", {"limit": 7})
    assert policy.limit == 7  # type: ignore[attr-defined]


def test_an_installed_package_offers_policies_by_name(tmp_path: Path) -> None:
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[clipper.policies]\nfirst = mine:First\n")
    policy = make_policy("first")
    assert type(policy).__name__ == "First"


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("best", {}, r"policy 'best' is not known: expected single, .*, module:Class, or a name"),
        ("exp3", {"epsilon": 1}, "exp3: got an unexpected keyword argument 'epsilon': its parameters are eta, gamma"),
        ("single", {"eta": 1}, "single: .*: its parameters are none"),
        ("exp4", {"_combiner": 1}, "exp4: got an unexpected keyword argument '_combiner'"),
        ("missing:First", {}, "cannot import 'missing' of missing:First: ModuleNotFoundError"),
        ("broken:First", {}, "cannot import 'broken' of broken:First: OSError: no such device"),
        ("mine:Second", {}, "mine has no class or function 'Second'"),
        ("mine:CONSTANT", {}, "mine has no class or function 'CONSTANT'"),
        (":First", {}, "cannot import '' of :First: ValueError"),
        ("mine:First", {"limit": -1}, "mine:First cannot be made: RuntimeError: below zero"),
        ("mine:First", {"speed": 1}, "mine:First: got an unexpected keyword argument 'speed'"),
        ("mine:Unfinished", {}, "mine:Unfinished cannot be made: TypeError: .*abstract method '?select"),
        ("mine:Foreign", {}, "mine:Foreign is no policy, for it has no combine, observe: subclass Policy"),
        ("mine:Odd", {}, "mine:Odd.feedback is 'some': expected one of selected, all"),
    ],
)
def test_what_is_no_policy_is_told(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make_policy(name, parameters)


def test_losses_by_name() -> None:
    assert make_loss("squared", {"range": 10}) == Squared(10)
    assert make_loss("mine:half")(b"1", b"2") == 0.5


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("hinge", {}, "loss 'hinge' is not known: expected zero_one, absolute, squared, log or module:function"),
        ("squared", {"range": 0}, "squared: range is 0: expected a number above 0"),
        ("mine:half", {"range": 1}, "loss mine:half takes no parameters: got range"),
        ("mine:third", {}, "mine has no class or function 'third'"),
    ],
)
def test_what_is_no_loss_is_told(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make_loss(name, parameters)
