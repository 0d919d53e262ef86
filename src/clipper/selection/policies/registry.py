"""Policies and losses by name: Clipper's own, those of installed packages, and ``module:attribute``."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from clipper.errors import InvalidArgument
from clipper.selection.learning.losses import LOSSES, Loss, UserLoss
from clipper.selection.policies.ensemble import Ensemble
from clipper.selection.policies.epsilon_greedy import EpsilonGreedy
from clipper.selection.policies.exp3 import Exp3
from clipper.selection.policies.exp4 import Exp4
from clipper.selection.policies.policy import Policy
from clipper.selection.policies.single import Single
from clipper.selection.policies.thompson import Thompson
from clipper.selection.policies.ucb1 import Ucb1
from clipper.selection.policies.weighted import Weighted

# A package offers policies by entry points of this group: name = "module:Class".
ENTRY_POINTS = "clipper.policies"

POLICIES: Mapping[str, Callable[..., Policy]] = {
    "single": Single,
    "weighted": Weighted,
    "epsilon_greedy": EpsilonGreedy,
    "ucb1": Ucb1,
    "thompson": Thompson,
    "exp3": Exp3,
    "exp4": Exp4,
    "ensemble": Ensemble,
}

T = TypeVar("T")

_METHODS = ("select", "combine", "observe")
_FEEDBACK = ("selected", "all")


def make_policy(name: str, parameters: Mapping[str, object] | None = None, code: str | None = None) -> Policy:
    """Make a policy by its name, an installed package's entry point, or ``module:Class``.

    Args:
        code: a folder where modules are looked for first.

    Raises:
        InvalidArgument: there is no such policy, it has no such parameter, a value is outside its range, or a user's
            class cannot be imported, cannot be made or is no policy.
    """
    kind = POLICIES.get(name)
    if kind is not None:
        return _make(name, kind, parameters or {})
    policy = _make(name, _find_policy(name, code), parameters or {})
    _check_policy(name, policy)
    return policy


def make_loss(name: str, parameters: Mapping[str, object] | None = None, code: str | None = None) -> Loss:
    """Make a loss by its name, or out of ``module:function``, which takes no parameters.

    Raises:
        InvalidArgument: as ``make_policy``.
    """
    if name in LOSSES:
        return _make(name, LOSSES[name], parameters or {})
    if ":" not in name:
        raise InvalidArgument(f"loss {name!r} is not known: expected {', '.join(LOSSES)} or module:function")
    if parameters:
        raise InvalidArgument(f"loss {name} takes no parameters: got {', '.join(parameters)}")
    return UserLoss(_load(name, code), name)


def import_own(policy: str, loss: str, code: str | None = None) -> None:
    """Import the modules of a policy and a loss of the user's own, so that making them takes no time.

    Whatever is wrong with them is for ``make_policy`` and ``make_loss`` to tell.
    """
    with suppress(InvalidArgument):
        if policy not in POLICIES:
            _find_policy(policy, code)
    with suppress(InvalidArgument):
        if ":" in loss:
            _load(loss, code)


def parameters_of(kind: Callable[..., Any]) -> dict[str, object]:
    """The parameters that a policy or loss takes, with their defaults."""
    return {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}


def _find_policy(name: str, code: str | None) -> Callable[..., Policy]:
    if ":" in name:
        return _load(name, code)
    for entry_point in entry_points(group=ENTRY_POINTS, name=name):
        return _load(entry_point.value, None)
    raise InvalidArgument(
        f"policy {name!r} is not known: expected {', '.join(POLICIES)}, module:Class, "
        f"or a name that an installed package offers in the group {ENTRY_POINTS}"
    )


def _load(target: str, code: str | None) -> Callable[..., Any]:
    module_name, _, attribute = target.partition(":")
    if code is not None:
        _prefer(code, module_name.partition(".")[0])
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything when it is imported
        raise InvalidArgument(f"cannot import {module_name!r} of {target}: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise InvalidArgument(f"{module_name} has no class or function {attribute!r}: expected module:attribute")
    return found  # type: ignore[no-any-return]


def _prefer(folder: str, package: str) -> None:
    """Have ``package`` imported from ``folder``, even if another application's of that name is already."""
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    loaded = sys.modules.get(package)
    if loaded is None or not _has(folder, package):
        return
    if not Path(str(getattr(loaded, "__file__", None))).is_relative_to(folder):
        for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
            del sys.modules[name]


def _has(folder: str, package: str) -> bool:
    return Path(folder, package).is_dir() or Path(folder, f"{package}.py").is_file()


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
        raise InvalidArgument(f"{name} is no policy, for it has no {', '.join(missing)}: subclass Policy")
    feedback = getattr(policy, "feedback", None)
    if feedback not in _FEEDBACK:
        raise InvalidArgument(f"{name}.feedback is {feedback!r}: expected one of {', '.join(_FEEDBACK)}")
