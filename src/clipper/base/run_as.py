"""The user that models run as, if the server runs as root with ``--run-as``. Standard library only."""

import ctypes
import grp
import os
import pwd
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from clipper.errors import InvalidArgument, Unavailable

_PR_SET_NO_NEW_PRIVS = 38
# The capabilities that root needs to start, watch and end processes of another user. Root in a container of Docker has
# all but the last by default.
_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SYS_PTRACE": 19,
}


# Numbers of groups that no user is in: systemd and its containers leave them free.
_FIRST_OWN_GID = 1_900_000_000
_OWN_GIDS = 100_000_000


@dataclass(frozen=True, slots=True)
class RunAs:
    """A user and a group. A process that runs as this user is in no other group, except for ``groups``."""

    user: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def in_own_group(run_as: RunAs, home: Path, number: int) -> RunAs:
    """Return the same user in a group that only this process of a home has; ``number`` is the process's own.

    All models run as one user. The kernel lets a process read the environment and the memory of another only if both
    have the same user and the same group. The further group opens the folders that are open to all models.
    """
    gid = _FIRST_OWN_GID + (zlib.crc32(os.fsencode(home)) + number) % _OWN_GIDS
    return replace(run_as, gid=gid, groups=(run_as.gid,))


def find_run_as(text: str) -> RunAs:
    """Find ``USER`` or ``USER:GROUP``, each a name or a number; without a group the user's own group is taken.

    Raises InvalidArgument if there is no such user or group, the user is root, or this process is not root.
    """
    name, colon, group = text.partition(":")
    try:
        user = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, ValueError, OverflowError):
        raise InvalidArgument(f"there is no user {name!r} on this machine: expected USER or USER:GROUP") from None
    try:
        gid = (grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)).gr_gid if colon else user.pw_gid
    except (KeyError, ValueError, OverflowError):
        raise InvalidArgument(f"there is no group {group!r} on this machine: expected USER or USER:GROUP") from None
    if user.pw_uid == 0 or gid == 0:
        raise InvalidArgument(f"{text} is root, or in root's group: expected a user without its rights")
    if os.geteuid() != 0:
        raise InvalidArgument("only root can run models as another user: start the server as root, or without --run-as")
    return RunAs(user.pw_name, user.pw_uid, gid)


class Credentials(TypedDict):
    """The arguments with which ``subprocess`` starts a process as a user."""

    user: int | None
    group: int | None
    extra_groups: list[int] | None


def credentials(run_as: RunAs | None) -> Credentials:
    """Return the arguments for this user. None starts the process as our own user."""
    if run_as is None:
        return Credentials(user=None, group=None, extra_groups=None)
    return Credentials(user=run_as.uid, group=run_as.gid, extra_groups=[])


def check_able() -> None:
    """Raise Unavailable if root lacks capabilities that running as another user needs."""
    # As bytes: this file also has the process's name, which may hold any bytes.
    status = Path("/proc/self/status").read_bytes()
    held = next(int(line.split()[1], 16) for line in status.split(b"\n") if line.startswith(b"CapEff:"))
    missing = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if missing:
        raise Unavailable(
            f"models cannot run as another user: root lacks {', '.join(missing)}; if the server is in a container, "
            "add these (docker run --cap-add), or start it without --run-as"
        )


def forbid_new_privileges() -> None:
    """Give up the possibility that a program, such as one with a setuid bit, gives this process more rights."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"no_new_privs cannot be set: {os.strerror(code)}")


def become(uid: int, gid: int, groups: Sequence[int] = ()) -> None:
    """Become that user, in that group and in no others but ``groups``."""
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)
