"""The server's own token, of the role admin: a file in the home, which its commands read."""

import hashlib
import hmac
import logging
import os
import re
import secrets
from pathlib import Path

from clipper.base.whole_files import stamp, stamp_of, write_whole
from clipper.errors import Unavailable
from clipper.settings.home import open_token, token_text

log = logging.getLogger(__name__)

# Nobody guesses 256 random bits, however fast the server answers.
_RANDOM_BYTES = 32
# An operator may write one. It must be long enough that nobody guesses it, and of characters that a header can carry.
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{32,512}")


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def new_token() -> str:
    """The prefix lets scanners of logs and repositories recognise it as a secret."""
    return f"clipper_{secrets.token_urlsafe(_RANDOM_BYTES)}"


class TokenFile:
    """Reads the token, and makes one if there is none. Only the holder of the home's lock may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def open(self) -> str:
        """The token, made if the file is missing or empty.

        Raises:
            Unavailable: the file does not hold a token, or cannot be read or written.
        """
        try:
            text = self._read()
            if not text:
                self._make()
            elif not TOKEN.fullmatch(text):
                raise Unavailable(
                    f"{self._path} holds no token: expected 32 to 512 letters, digits or ._~+/=-; delete the file, and "
                    "the next start makes one"
                )
            else:
                self._token = text
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the token file {self._path} cannot be used: {error}") from error
        return self._token

    def matches(self, token: str) -> bool:
        """Compare in a time that does not depend on how many characters match."""
        return hmac.compare_digest(digest_of(token), digest_of(self.again()))

    def again(self) -> str:
        """The token in the file now: a replaced token holds from now on, a missing file is made anew.

        If the file cannot be used the token stays as it was, so that its holder can still stop the server.
        """
        try:
            if stamp(self._path) != self._seen:
                log.info("the token file %(file)s was changed or removed", {"file": self._path})
                self.open()
        except (Unavailable, OSError) as error:
            log.warning("the token stays as it was: %(error)s", {"error": error})
            # Logged once, not for each call until the file changes again.
            self._seen = stamp(self._path)
        return self._token

    def _read(self) -> str:
        """The content of the file; empty if there is no file."""
        try:
            with open_token(self._path) as file:
                found = os.fstat(file.fileno())
                # Taken before the file is read: if it is replaced meanwhile, the next call sees that.
                self._seen = stamp_of(found)
                if found.st_mode & 0o077:
                    self._close_to_others(file.fileno())
                return token_text(file)
        except FileNotFoundError:
            self._seen = None
            return ""

    def _make(self) -> None:
        token = new_token()
        write_whole(self._path, [f"{token}\n".encode()], is_synced=True)
        self._token, self._seen = token, stamp(self._path)

    def _close_to_others(self, descriptor: int) -> None:
        """The home's own mode may have been lost when it was copied or shared."""
        try:
            os.fchmod(descriptor, 0o600)
            log.warning(
                "others could read %(file)s; its mode is 0600 now: delete it to have a new token made",
                {"file": self._path},
            )
        except PermissionError as error:  # it may be mounted read-only, such as a secret of an orchestrator
            log.warning(
                "%(file)s can be read by others, and its mode cannot be changed: %(error)s",
                {"file": self._path, "error": error},
            )
