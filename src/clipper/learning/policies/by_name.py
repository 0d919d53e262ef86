"""Finds policies and losses by name: Clipper's, those of installed packages, and ``module:attribute`` of an artifact.

No other code can be named: otherwise a user who may change an application could call any function of any library.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.ledger import DEFAULT_HALF_LIFE
from clipper.learning.mathematics.losses import LOSSES, Loss, UserLoss
from clipper.learning.policies.adaptive import Adaptive
from clipper.learning.policies.best_arm import BestArm
from clipper.learning.policies.cascade import Cascade
from clipper.learning.policies.ensemble import Ensemble
from clipper.learning.policies.epsilon_greedy import EpsilonGreedy
from clipper.learning.policies.exp3 import Exp3
from clipper.learning.policies.exp4 import Exp4
from clipper.learning.policies.linear_thompson import LinearThompson
from clipper.learning.policies.linucb import LinUcb
from clipper.learning.policies.policy import Policy
from clipper.learning.policies.single import Single
from clipper.learning.policies.stacking import Stacking
from clipper.learning.policies.thompson import Thompson
from clipper.learning.policies.ucb1 import Ucb1
from clipper.learning.policies.weighted import Weighted

# A package offers policies by entry points of this group, and losses by the next: name = "module:attribute".
POLICY_GROUP = "clipper.policies"
LOSS_GROUP = "clipper.losses"

POLICIES: Mapping[str, type[Policy]] = {
    "single": Single,
    "weighted": Weighted,
    "adaptive": Adaptive,
    "best_arm": BestArm,
    "epsilon_greedy": EpsilonGreedy,
    "ucb1": Ucb1,
    "thompson": Thompson,
    "exp3": Exp3,
    "exp4": Exp4,
    "ensemble": Ensemble,
    "stacking": Stacking,
    "linucb": LinUcb,
    "linear_thompson": LinearThompson,
    "cascade": Cascade,
}

T = TypeVar("T")

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_METHODS = ("select", "combine", "observe")
_FEEDBACK = ("selected", "all")
# The parameters of each method, and the position of the query. Policies written before there was a query have a context
# in that place, or nothing.
_SHAPES = {
    "select": ("models, totals, query, random", 2),
    "next": ("choice, outputs, totals, query, outlook, random", 3),
    "combine": ("choice, outputs, totals, query", 3),
    "observe": ("choice, losses, totals, query", 3),
    "observe_reward": ("choice, losses, totals, query", 3),
}


def make_policy(name: str, parameters: Mapping[str, object] | None = None, code: str | None = None) -> Policy:
    """Make a policy by its name, by an installed package's entry point, or as ``module:Class`` of ``code``. ``code``:
    the folder of an artifact's modules; None allows no ``module:Class``. Raises InvalidArgument if the policy or a
    parameter does not exist, a value is out of range, or a user's class cannot be imported, cannot be made or is not a
    policy.
    """
    kind = POLICIES.get(name)
    if kind is not None:
        return _make(name, kind, parameters or {})
    policy: Policy = _make(name, _find("policy", name, code), parameters or {})
    _check_policy(name, policy)
    return policy


def make_loss(name: str, parameters: Mapping[str, object] | None = None, code: str | None = None) -> Loss:
    """Make a loss by its name, or from a user's or a package's function without parameters. See ``make_policy``."""
    if name in LOSSES:
        return _make(name, LOSSES[name], parameters or {})
    function = _find("loss", name, code)
    if parameters:
        raise InvalidArgument(f"loss {name} takes no parameters: got {', '.join(parameters)}")
    return UserLoss(function, name)


def goes_by(policy: str) -> str:
    """Return what a policy's choices depend on: see ``Policy.goes_by``. A user's own policy sees the whole query."""
    return POLICIES[policy].goes_by if policy in POLICIES else "query"


def is_by_context(policy: str, prior_weight: float) -> bool:
    """Return whether an application's choices may depend on a query's own data. ``prior_weight``: how much a context
    uses of what was learned over all queries. Without it, every policy learns in each context by itself.
    """
    kind = POLICIES.get(policy)
    if kind is None:
        return True
    # A policy that asks all models each time chooses none.
    return kind.feedback == "selected" and (kind.goes_by != "nothing" or (kind.learns and not prior_weight))


def default_half_life(policy: str) -> int | None:
    """Return the policy's default half-life in observations, which suits the policy."""
    return POLICIES[policy].default_half_life if policy in POLICIES else DEFAULT_HALF_LIFE


def runs_own_code(policy: str, loss: str) -> bool:
    """Return whether making the policy and loss runs code that is not Clipper's."""
    return policy not in POLICIES or loss not in LOSSES


def parameters_of(kind: Callable[..., Any]) -> dict[str, object]:
    """Return the parameters that a policy or loss takes, with their defaults."""
    return {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}


def _find(kind: Literal["policy", "loss"], name: str, code: str | None) -> Callable[..., Any]:
    """Return the class of a policy, or the function of a loss, that is not Clipper's own."""
    known, group = (tuple(POLICIES), POLICY_GROUP) if kind == "policy" else (tuple(LOSSES), LOSS_GROUP)
    if ":" in name:
        if code is None or not _is_of(name, code):
            raise InvalidArgument(
                f"{kind} {name[:100]!r} comes without its code: run the command in the folder of the module's file, or "
                f"install a package that offers the {kind} by an entry point of the group {group}"
            )
        _prefer(code, name.partition(":")[0].partition(".")[0])
        return _load(name)
    for entry_point in entry_points(group=group, name=name):
        return _load(entry_point.value)
    raise InvalidArgument(
        f"{kind} {name[:100]!r} is not known: expected {', '.join(known)}, module:attribute with its code, "
        f"or a name that an installed package offers in the group {group}"
    )


def _is_of(target: str, code: str) -> bool:
    """Whether the module is the artifact's. Raises InvalidArgument if it would hide one of Python or Clipper."""
    parts = target.partition(":")[0].split(".")
    if not all(part.isidentifier() for part in parts):
        return False
    if not Path(code, parts[0]).is_dir() and not Path(code, f"{parts[0]}.py").is_file():
        return False
    if parts[0] in sys.stdlib_module_names or parts[0] == "clipper":
        raise InvalidArgument(f"module {parts[0]!r} has the name of one of Python's or Clipper's: rename it")
    return True


def _load(target: str) -> Callable[..., Any]:
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything when it is imported
        raise InvalidArgument(f"cannot import {module_name!r} of {target}: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise InvalidArgument(f"{module_name} has no class or function {attribute!r}: expected module:attribute")
    return found  # type: ignore[no-any-return]


def _prefer(folder: str, package: str) -> None:
    """Import ``package`` from ``folder``, even if another application's package of the same name is loaded."""
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    loaded = sys.modules.get(package)
    if loaded is not None and not Path(str(getattr(loaded, "__file__", None))).is_relative_to(folder):
        for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
            del sys.modules[name]


def _make(name: str, kind: Callable[..., T], parameters: Mapping[str, object]) -> T:
    try:
        inspect.signature(kind).bind(**parameters)
    except (TypeError, ValueError) as error:
        known = ", ".join(parameters_of(kind)) or "none"
        raise InvalidArgument(f"{name}: {error}: its parameters are {known}") from error
    try:
        return kind(**parameters)
    except InvalidArgument as error:
        raise InvalidArgument(f"{name}: {error}") from error
    except (Exception, SystemExit) as error:  # a user's class may raise anything
        raise InvalidArgument(f"{name} cannot be made: {type(error).__name__}: {error}") from error


def _check_policy(name: str, policy: object) -> None:
    missing = [method for method in _METHODS if not callable(getattr(policy, method, None))]
    if missing:
        raise InvalidArgument(f"{name} is not a policy: it has no {', '.join(missing)}: subclass Policy")
    for method, (shape, place) in _SHAPES.items():
        problem = _wrong_shape(getattr(policy, method, None), shape.split(", "), place)
        if problem is not None:
            raise InvalidArgument(
                f"{name}.{method} {problem}: expected {method}({shape}); query.context is the context"
            )
    feedback = getattr(policy, "feedback", None)
    if feedback not in _FEEDBACK:
        raise InvalidArgument(f"{name}.feedback is {feedback!r}: expected one of {', '.join(_FEEDBACK)}")


def _wrong_shape(method: Callable[..., Any] | None, expected: Sequence[str], place: int) -> str | None:
    """Return how a method's parameters differ from the expected ones; None if they do not, or cannot be inspected."""
    if method is None:
        return None
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # a function in C, for example
        return None
    names = [each.name for each in signature.parameters.values() if each.kind in _BY_POSITION]
    try:
        signature.bind(*expected)
    except TypeError:
        return f"takes ({', '.join(signature.parameters)})"
    # A query that the method does not use may be named ``_``.
    if place < len(names) and names[place] != "query" and not names[place].startswith("_"):
        return f"takes {names[place]!r} where the query is"
    return None
