"""A version's own environment variables: names, bounds, and the fingerprints that a server shows of their values."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from clipper.errors import InvalidArgument

# A version that needs more should read a file in its artifact.
MAX_VARIABLES = 100
# Less than Linux allows for one variable of a process, and enough for a service account's key with its certificates.
MAX_VALUE_BYTES = 64 * 1024
# Bound on all values together: a quarter of Linux's limit for the variables and arguments of a process.
MAX_VALUES_BYTES = 512 * 1024

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# The name of a secret is the name of its file.
_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# The variables by which Clipper starts, bounds and finds a container.
_OWN = re.compile(r"CLIPPER_.*|PYTHONPATH|PYTHONHOME|HOME|TMPDIR|CUDA_VISIBLE_DEVICES")
# The form in which a server shows a value, by which a change is seen. It confirms a guess:
# a value that must stay hidden is a secret, of which a server shows nothing.
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{8}")


def check_variable_name(name: str) -> str:
    """Return the name of a variable. Raises InvalidArgument if it is malformed, or Clipper's own."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"{name!r:.100} is not the name of a variable: expected letters, digits and _, without a digit first"
        )
    if _OWN.fullmatch(name):
        raise InvalidArgument(f"the variable {name} is set by Clipper: expected another name")
    return name


def check_secret_name(name: str) -> str:
    """Return the name of a secret. Raises InvalidArgument if it is malformed."""
    # Files that are being written have names with this ending.
    if not _SECRET.fullmatch(name) or name.endswith(".tmp"):
        raise InvalidArgument(
            f"{name!r:.100} is not the name of a secret: expected up to 128 letters, digits, _, - and ., "
            "and a letter, digit or _ first"
        )
    return name


def check_value(what: str, value: str) -> str:
    """Return a variable's value. Raises InvalidArgument, without the value, if a process cannot get it."""
    if "\0" in value or len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES:
        raise InvalidArgument(
            f"the value of {what} is not valid: expected at most {MAX_VALUE_BYTES} bytes, without a zero byte"
        )
    return value


def read_variable(text: str) -> dict[str, str]:
    """Read ``NAME=value``. No message contains the value."""
    name, equals, value = text.partition("=")
    if not equals:
        shown = f"{name!r:.100} is" if _NAME.fullmatch(name) else "the text is"
        raise InvalidArgument(f"{shown} not a variable with its value: expected NAME=value, e.g. LOG_LEVEL=info")
    return {check_variable_name(name): check_value(name, value)}


def read_secret(text: str) -> str:
    """Check ``NAME``, or ``VARIABLE=NAME`` where the variable's name is not the secret's."""
    variable, secret = secret_of(text)
    try:
        check_variable_name(variable)
    except InvalidArgument as error:
        raise InvalidArgument(f"{error}; VARIABLE=NAME gives the secret NAME to VARIABLE") from error
    check_secret_name(secret)
    return text


def secret_of(text: str) -> tuple[str, str]:
    """Return the variable and the secret of ``NAME`` or ``VARIABLE=NAME``."""
    variable, equals, secret = text.partition("=")
    return variable, secret if equals else variable


def check_variables(env: Mapping[str, str], secrets: Sequence[str]) -> None:
    """Raise InvalidArgument if a version cannot have these variables."""
    names = [*env, *(secret_of(read_secret(text))[0] for text in secrets)]
    for name, value in env.items():
        check_value(check_variable_name(name), value)
    if len(names) > MAX_VARIABLES:
        raise InvalidArgument(f"the version has {len(names)} variables: expected at most {MAX_VARIABLES}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidArgument(f"the variable {twice[0]} has several values: expected each variable once")
    if sum(len(value.encode("utf-8", "surrogatepass")) for value in env.values()) > MAX_VALUES_BYTES:
        raise InvalidArgument(f"the variables' values are too large: expected at most {MAX_VALUES_BYTES} bytes")


def read_env_file(text: str) -> dict[str, str]:
    """Read lines ``NAME=value`` as Docker's ``--env-file`` has them: ``#`` begins a comment, and quotes are kept.

    Raises InvalidArgument with the line's number, and without its value.
    """
    found: dict[str, str] = {}
    # Not by splitlines, which also splits a value at a form feed, or at a line separator of Unicode.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                found |= read_variable(line.lstrip().removesuffix("\r"))
            except InvalidArgument as error:
                raise InvalidArgument(f"line {number}: {error}") from error
    return found


def shown_value(value: str) -> str:
    """Return the fingerprint that a server shows of a value: equal values have equal ones."""
    if _FINGERPRINT.fullmatch(value):
        return value
    return f"sha256:{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def shown_values(env: Mapping[str, str]) -> dict[str, str]:
    return {name: shown_value(value) for name, value in env.items()}


def resolved(env: Mapping[str, str], earlier: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Replace each fingerprint by the value that it stands for in one of ``earlier``, the variables of versions.

    So a user who sees only fingerprints can have the version deployed again. Raises InvalidArgument if there is no
    such value.
    """
    known = {(name, shown_value(value)): value for one in earlier for name, value in one.items()}
    found = {}
    for name, value in env.items():
        if _FINGERPRINT.fullmatch(value) and (name, value) not in known:
            raise InvalidArgument(
                f"the variable {name} is {value}, which no version of this model has: expected its value"
            )
        found[name] = known.get((name, value), value)
    return found
