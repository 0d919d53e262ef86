"""Hides the values of secrets in texts that others see. Standard library only: containers use it, too."""

from collections.abc import Iterable, Mapping

# Masking a shorter text would also mask half of the text around it.
LEAST_SECRET_CHARACTERS = 4
# This variable lists, separated by commas, the variables of a container whose values are secrets.
SECRETS_VARIABLE = "CLIPPER_SECRETS"


def masked(text: str, hidden: Iterable[str]) -> str:
    """Replace the values of secrets in a text by ``***``; of a value with several lines, replace each line."""
    parts = {line.strip() for value in hidden for line in value.splitlines()}
    for part in sorted((one for one in parts if len(one) >= LEAST_SECRET_CHARACTERS), key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of a container's variables that are secrets."""
    names = environ.get(SECRETS_VARIABLE, "").split(",")
    return tuple(environ[name] for name in names if name in environ)


def without_password(address: str) -> str:
    """Return the address of a store without name and password: messages go to logs."""
    scheme, slashes, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if slashes else address.rpartition("@")[2]
