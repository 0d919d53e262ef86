"""The server's certificate: read at the start, and again when its files change or SIGHUP comes."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from clipper.errors import InvalidArgument
from clipper.tls.expiry import CLIENT_CA, SERVER, expires_at, expiry_problem
from clipper.tls.material import TlsMaterial, TlsPaths, own_certificate, read_material, server_context

log = logging.getLogger(__name__)

# Files are taken once they have been the same for so long: what renews them writes one after another.
LOOK_EVERY_S = 1.0

_Identity = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """
    Attributes:
        material: what clients are met with now.
        problem: why it is not what the files hold; None if it is.
    """

    def __init__(self, paths: TlsPaths, copy: Path) -> None:
        """``copy``: where commands of this home find the certificate that they are to meet.

        Raises:
            InvalidArgument: see ``read_material``.
        """
        self._paths = paths
        self._copy = copy
        self._followers: list[Callable[[TlsMaterial], None]] = []
        self._taken = self._seen = self._identity()
        self.material = read_material(paths)
        self.problem: str | None = None
        self._write_copy(self.material)

    def management_context(self) -> ssl.SSLContext:
        """Its clients show tokens; probes, which have none, could not show a certificate either."""
        return server_context(replace(self.material, client_ca=None))

    @property
    def expires_at(self) -> float | None:
        """When the certificate, or one that signed it, expires, in seconds since 1970; None if that cannot be read."""
        return expires_at(self.material.certificate)

    @property
    def client_ca_expires_at(self) -> float | None:
        """When the first of those that sign clients' certificates expires; None without them."""
        return None if self.material.client_ca is None else expires_at(self.material.client_ca)

    def problems(self, now_s: float) -> list[str]:
        """What an operator has to see to; ``now_s`` is in seconds since 1970."""
        expiries = (
            expiry_problem(SERVER, self.expires_at, now_s),
            expiry_problem(CLIENT_CA, self.client_ca_expires_at, now_s),
        )
        return [told for told in (self.problem, *expiries) if told is not None]

    def follow(self, follower: Callable[[TlsMaterial], None]) -> None:
        """Have it told of each new certificate."""
        self._followers.append(follower)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Take the files if they are others than those that were looked at, and are the same as at the last look."""
        before, self._seen = self._seen, self._identity()
        if self._seen != self._taken and self._seen == before:
            self.renew()

    def renew(self) -> None:
        """Take the files as they are now. If they cannot be used, all stays as it was, and is told."""
        self._taken = self._seen = self._identity()
        try:
            material = read_material(self._paths)
            self._write_copy(material)
        except InvalidArgument as error:
            self._stay(f"what its files hold now cannot be used: {error}")
            return
        except OSError as error:
            # The next look tries again: it is no fault of the files.
            self._taken = ()
            self._stay(f"{self._copy}, by which commands know it, cannot be written: {error}")
            return
        self.problem = None
        if material == self.material:
            log.info("the certificate is as it was")
            return
        self.material = material
        for follower in self._followers:
            follower(material)
        log.info("new connections are met with the new certificate")

    def _stay(self, why: str) -> None:
        problem = f"the certificate stays as it was, for {why}"
        if problem != self.problem:
            log.error("%s", problem)
        self.problem = problem

    def _write_copy(self, material: TlsMaterial) -> None:
        temporary = self._copy.with_suffix(".tmp")
        temporary.write_bytes(own_certificate(material))
        temporary.replace(self._copy)

    def _identity(self) -> _Identity:
        """Another one for each content that is put into one of the files."""
        paths = (self._paths.certificate, self._paths.key, self._paths.client_ca)
        return tuple(_identity_of(path) for path in paths if path is not None)


def _identity_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
