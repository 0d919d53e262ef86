"""The server's certificate: read at the start, when its files change, and on SIGHUP."""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from clipper.base.tls.expiry import CLIENT_CA, SERVER, expires_at, expiry_problem
from clipper.base.tls.material import TlsMaterial, TlsPaths, own_certificate, read_material, server_context
from clipper.base.whole_files import stamp, write_whole
from clipper.errors import InvalidArgument

log = logging.getLogger(__name__)

# Files are read once they have been unchanged for this long: a renewal writes them one after another.
LOOK_EVERY_S = 1.0

_Identity = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """The server's certificate. ``material``: the pair in use. ``problem``: why the files' content is not in use."""

    def __init__(self, paths: TlsPaths, copy: Path) -> None:
        """Read the files. ``copy``: where this home's commands find the certificate. Raises InvalidArgument."""
        self._paths = paths
        self._copy = copy
        self._followers: list[Callable[[TlsMaterial], None]] = []
        self._taken = self._seen = self._identity()
        self.material = read_material(paths)
        self.problem: str | None = None
        self._write_copy(self.material)

    def management_context(self) -> ssl.SSLContext:
        """Return a context without client certificates: clients of this port show tokens, and probes show nothing."""
        return server_context(replace(self.material, client_ca=None))

    @property
    def expires_at(self) -> float | None:
        """Return when the certificate or its signers' first expires, in seconds since 1970; None if unreadable."""
        return expires_at(self.material.certificate)

    @property
    def client_ca_expires_at(self) -> float | None:
        """Return when the first certificate that signs clients' certificates expires; None without any."""
        return None if self.material.client_ca is None else expires_at(self.material.client_ca)

    def problems(self, now_s: float) -> list[str]:
        """Return the problems for an operator; ``now_s`` is in seconds since 1970."""
        expiries = (
            expiry_problem(SERVER, self.expires_at, now_s),
            expiry_problem(CLIENT_CA, self.client_ca_expires_at, now_s),
        )
        return [problem for problem in (self.problem, *expiries) if problem is not None]

    def follow(self, follower: Callable[[TlsMaterial], None]) -> None:
        self._followers.append(follower)

    def look(self) -> None:
        """Read the files if they have changed, and have not changed again since the last look."""
        before, self._seen = self._seen, self._identity()
        if self._seen != self._taken and self._seen == before:
            self.renew()

    def renew(self) -> None:
        """Read the files now. If they cannot be used the old certificate stays, and ``problem`` says why."""
        self._taken = self._seen = self._identity()
        try:
            material = read_material(self._paths)
            self._write_copy(material)
        except InvalidArgument as error:
            self._stay(f"the new files cannot be used: {error}")
            return
        except OSError as error:
            # The next look tries again: the certificate's files are not at fault.
            self._taken = ()
            self._stay(f"{self._copy}, the copy for commands, cannot be written: {error}")
            return
        self.problem = None
        if material == self.material:
            log.info("the certificate has not changed")
            return
        self.material = material
        for follower in self._followers:
            follower(material)
        log.info("new connections get the new certificate")

    def _stay(self, why: str) -> None:
        problem = f"the old certificate stays in use: {why}"
        if problem != self.problem:
            log.error("%(reason)s", {"reason": problem})
        self.problem = problem

    def _write_copy(self, material: TlsMaterial) -> None:
        write_whole(self._copy, [own_certificate(material)])

    def _identity(self) -> _Identity:
        """Return a value that differs whenever other content is put into any of the files."""
        paths = (self._paths.certificate, self._paths.key, self._paths.client_ca)
        return tuple(stamp(path) for path in paths if path is not None)
