"""The server's own token of the role admin: a file of the home, which its commands read by themselves."""

import logging
import os
import re
import secrets
from pathlib import Path

from clipper.errors import Unavailable

log = logging.getLogger(__name__)

# Guessing 256 random bits is beyond anyone, however fast the server answers.
_RANDOM_BYTES = 32
# An operator may bring one of their own: no shorter than one that nobody guesses, and of what a header takes.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{32,512}")


def new_token() -> str:
    """Its beginning tells those who search logs and repositories for secrets what it is."""
    return f"clipper_{secrets.token_urlsafe(_RANDOM_BYTES)}"


class TokenFile:
    """Reads the token, and makes it where there is none. Only who has the home's lock may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def open(self) -> str:
        """The token, made if the file is missing or empty.

        Raises:
            Unavailable: the file holds something else, or cannot be read or made.
        """
        try:
            self._tighten()
            text = self._read()
            if not text:
                self._make()
            elif not _TOKEN.fullmatch(text):
                raise Unavailable(
                    f"{self._path} holds no token: expected 32 to 512 letters, digits or ._~+/=-; delete the file, and "
                    "the next start makes one"
                )
            else:
                self._token = text
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the token file {self._path} cannot be used: {error}") from error
        return self._token

    def again(self) -> str:
        """The token as the file says now: another one in its place counts from now on, a missing one is made anew.

        A file that cannot be used leaves the token as it was: who has it may then still stop the server.
        """
        try:
            if self._identity() != self._seen:
                log.info("the token file %s was changed or removed", self._path)
                self.open()
        except (Unavailable, OSError) as error:
            log.warning("the token stays as it was: %s", error)
            # Said once, and not for each call until the file changes again.
            self._seen = self._identity()
        return self._token

    def _read(self) -> str:
        """What it holds; empty if it is not there."""
        try:
            # Before it is read: one that is put there meanwhile is then seen by the next call.
            self._seen = self._identity()
            return self._path.read_text("ascii").strip()
        except FileNotFoundError:
            return ""

    def _make(self) -> None:
        token, temporary = new_token(), self._path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        # In one step: a command that reads it meanwhile sees all of it or none.
        temporary.replace(self._path)
        self._token, self._seen = token, self._identity()

    def _tighten(self) -> None:
        """The home is closed to others, but it may have been copied or shared: its key is not to depend on that."""
        try:
            mode = self._path.stat().st_mode
            if mode & 0o077:
                log.warning(
                    "others could read %s; its mode is 0600 now: delete it to have a new token made", self._path
                )
                self._path.chmod(0o600)
        except FileNotFoundError:
            return
        except PermissionError as error:  # one that is mounted read-only, such as a secret of an orchestrator's
            log.warning("%s can be read by others, and its mode cannot be changed: %s", self._path, error)

    def _identity(self) -> tuple[int, int, int] | None:
        """Another one for each content that is put there; None if nothing is, or it cannot be told."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
