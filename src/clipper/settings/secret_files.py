"""The secrets of a server's models, kept as files: in the home, by systemd, and mounted by Docker or Kubernetes."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipper.base.masking import LEAST_SECRET_CHARACTERS
from clipper.base.whole_files import write_whole
from clipper.errors import InvalidArgument, NotFound, Unavailable
from clipper.settings.variables import (
    MAX_VALUE_BYTES,
    MAX_VALUES_BYTES,
    check_secret_name,
    check_value,
    secret_of,
)

# The folder of a home with a file for each secret.
SECRETS_NAME = "secrets"
# A file's name must begin with this to be a secret for models: systemd and Docker keep the server's own secrets in the
# same folder, and users who may deploy a model must not be able to name those.
PREFIX = "model."
# Docker and Kubernetes mount secrets in the first folder; all files of the second are for models.
MOUNTED = Path("/run/secrets")
MOUNTED_FOLDER = "models"


class SecretFiles:
    """The secrets that a server can give to its models, looked for in the home first, then in what is mounted."""

    def __init__(self, home: Path, environ: Mapping[str, str], mounted: Path = MOUNTED) -> None:
        self._own = home / SECRETS_NAME
        credentials = environ.get("CREDENTIALS_DIRECTORY", "")
        # The folders, each with the required beginning of its files' names.
        self._places = [(self._own, ""), (mounted / MOUNTED_FOLDER, ""), (mounted, PREFIX)]
        if credentials:
            self._places.insert(1, (Path(credentials), PREFIX))

    def set(self, name: str, value: str) -> None:
        """Keep a secret in the home, readable for this user alone. Raises InvalidArgument and Unavailable."""
        path = self._own / check_secret_name(name)
        _checked(name, value)
        try:
            self._own.mkdir(mode=0o700, exist_ok=True)
            write_whole(path, (value.encode(),), is_synced=True)
        except OSError as error:
            raise Unavailable(f"the secret {name} cannot be written: {error}; run this as the server's user") from error

    def delete(self, name: str) -> None:
        """Remove a secret from the home. Raises NotFound if the home does not have it."""
        try:
            (self._own / check_secret_name(name)).unlink()
        except FileNotFoundError:
            raise NotFound(
                f"secret {name!r} does not exist in {self._own}: clipper secret list shows those that do"
            ) from None
        except OSError as error:
            raise Unavailable(f"the secret {name} cannot be removed: {error}") from error

    def names(self) -> dict[str, Path]:
        """Return the secrets' names with the files that have their values."""
        found: dict[str, Path] = {}
        for folder, prefix in self._places:
            try:
                paths = sorted(folder.iterdir())
            except OSError:
                continue
            for path in paths:
                name = path.name.removeprefix(prefix)
                if path.name.startswith(prefix) and _is_secret(name) and path.is_file():
                    found.setdefault(name, path)
        return found

    def value(self, name: str) -> str:
        """Return a secret's value, without the line feed at its end. Raises NotFound if there is none."""
        check_secret_name(name)
        for folder, prefix in self._places:
            try:
                # Without blocking: the opening of a pipe would wait for a writer.
                path = folder / f"{prefix}{name}"
                with open(path, "rb", opener=lambda at, flags: os.open(at, flags | os.O_NONBLOCK)) as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        continue
                    content = file.read(MAX_VALUE_BYTES + 2)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            except OSError as error:
                raise Unavailable(f"the secret {name} cannot be read: {error}") from error
            try:
                return _checked(name, content.decode())
            except UnicodeDecodeError:
                raise InvalidArgument(f"the secret {name} is not text in UTF-8, which a variable has to be") from None
        raise NotFound(
            f"secret {name!r} does not exist on the server's machine: run clipper secret set {name} there, as the "
            "server's user, or mount it"
        )

    def values(self, secrets: Sequence[str]) -> dict[str, str]:
        """Return the variables of ``VersionSpec.secrets`` with their values.

        Raises NotFound, InvalidArgument or Unavailable for a secret that is missing, malformed or cannot be read.
        """
        found = {variable: self.value(name) for variable, name in map(secret_of, secrets)}
        if sum(len(value.encode()) for value in found.values()) > MAX_VALUES_BYTES:
            raise InvalidArgument(f"the secrets are too large: expected at most {MAX_VALUES_BYTES} bytes together")
        return found


def _is_secret(name: str) -> bool:
    try:
        return bool(check_secret_name(name))
    except InvalidArgument:
        return False


def _checked(name: str, value: str) -> str:
    """Return a secret without the line feed that editors and ``echo`` put at its end."""
    value = check_value(f"the secret {name}", value.removesuffix("\n").removesuffix("\r"))
    if len(value) < LEAST_SECRET_CHARACTERS:
        raise InvalidArgument(f"the secret {name} is too short: expected at least {LEAST_SECRET_CHARACTERS} characters")
    return value
