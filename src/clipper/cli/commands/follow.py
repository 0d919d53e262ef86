"""``clipper deploy NAME ADDRESS --follow``: deploys the content of an address each time that it changes."""

import time
from collections.abc import Callable
from typing import Any

from clipper.api.schemas import Version
from clipper.cli.server import Server
from clipper.client import Clipper
from clipper.client.packaging.models import look, package
from clipper.errors import ClipperError, InvalidArgument, NotFound, ServiceError, TooLarge


def last_followed(clipper: Clipper, name: str) -> Version | None:
    """Return the latest version of a model that came from an address, whether it is current or was stopped since."""
    try:
        versions = clipper.model(name).versions
    except NotFound:
        return None
    return max((one for one in versions if one.source), key=lambda one: one.created_at, default=None)


# An attempt that deploys nothing new may have fetched everything. After several such attempts in a row, at most this
# many looks are skipped before the next attempt.
MOST_LOOKS = 16


class Follower:
    """Deploys the content of an address.

    Args:
        deploy: deploys a version if its content is another than that of ``last``; returns what is there then.
        look: returns a text that changes with the content.
        say: told of each change, and of each failure that is not the same as the one before.
    """

    def __init__(
        self,
        look: Callable[[], str],
        deploy: Callable[[Version | None], Version],
        say: Callable[[str], None],
        last: Version | None = None,
    ) -> None:
        self._look, self._deploy, self._say = look, deploy, say
        self._revision: str | None = None
        self._failure = ""
        self._is_first = True
        # How many attempts in a row deployed nothing new, and how many looks to skip before the next attempt.
        self._in_vain = self._passes = 0
        self.last = last

    def step(self) -> Version | None:
        """Look once. Return a version that was deployed; None if there is nothing new, or it cannot be had now.

        Raises InvalidArgument at the first step, if the address cannot be followed or deployed so.
        """
        is_first, self._is_first = self._is_first, False
        before, revision = self.last, None
        try:
            revision = self._look()
            if revision == self._revision:
                self._failure, self._in_vain = "", 0
                return None
            if self._passes:
                self._passes -= 1
                return None
            self.last = self._deploy(before)
        except (NotFound, ServiceError, TooLarge, OSError) as error:
            # The present version goes on serving, and the next look notices a store that is back.
            self._complain(error)
            if revision is not None:
                self._wait_longer()
            return None
        except Exception as error:  # the content may be anything, and fail at any step
            if isinstance(error, InvalidArgument) and is_first:
                raise
            # This content cannot be deployed, however often it is tried; other content may be.
            self._revision = self._revision if revision is None else revision
            self._complain(error)
            return None
        self._revision, self._failure = revision, ""
        if before is not None and self.last.version == before.version:
            self._wait_longer()  # the store reported a change, but the content is the same
            return None
        self._in_vain = 0
        came = "" if before is None else f" after {before.source} (version {before.version})"
        self._say(f"{self.last.model}:{self.last.version} is deployed from {self.last.source}{came}")
        return self.last

    def _wait_longer(self) -> None:
        self._in_vain += 1
        self._passes = min(2 ** (self._in_vain - 1), MOST_LOOKS) - 1

    def _complain(self, error: Exception) -> None:
        text = str(error) if isinstance(error, ClipperError) else f"{type(error).__name__}: {error}"
        if text != self._failure:
            self._failure = text
            self._say(f"the deployed version stays: {text}")


def follow(server: Server, name: str, model: str, source: Any, settings: Any, every_s: float) -> None:
    """Deploy the content of an address, again and again, until the command is ended."""
    out = server.out
    credentials = source.get("credentials")

    def deploy(last: Version | None) -> Version:
        with out.progress("deploying") as progress, package(model, **source, progress=progress) as artifact:
            if last is not None and last.source == artifact.source:
                return last  # the same content: the version may have been stopped since, and is not tried again
            out.warn(artifact.warning)
            return server.clipper.deploy(name, artifact, **settings, progress=progress)

    follower = Follower(lambda: look(model, credentials), deploy, out.line, last_followed(server.clipper, name))
    while True:
        follower.step()
        time.sleep(every_s)
