"""Remembers which of a store's changes this process has made, so that it need not read them again.

Each commit has a revision of its own. A process adds its own commits to its memory, too, and has to read again only
what other revisions have changed.
"""

# A follower looks four times a second, and a commit takes milliseconds. If nobody follows, nothing is kept.
MAX_KEPT = 10_000


class OwnChanges:
    """The commits of this process.

    Attributes:
        followed: the cursor up to which the follower knows of changes; -1 if there is no follower.
        revisions: the revisions of own commits since then.
    """

    def __init__(self) -> None:
        self.followed = -1
        self.revisions: set[int] = set()

    def commit(self, revision: int) -> None:
        """Note a commit of this process, which is stored and will be added to memory."""
        if self.followed >= 0:
            self.revisions.add(revision)
            if len(self.revisions) > MAX_KEPT:
                self.distrust()

    def distrust(self) -> None:
        """Have the follower read again whatever has changed, since a commit may not have been added to memory."""
        self.followed = -1
        self.revisions.clear()

    def known(self, cursor: int) -> set[int]:
        """Return the revisions that a follower need not read, if it knows of changes up to ``cursor``."""
        return set(self.revisions) if cursor == self.followed >= 0 else set()

    def follow(self, cursor: int) -> None:
        """Note that the follower knows of all changes up to ``cursor``."""
        self.followed = cursor
        # A commit may have been made after the cursor was read.
        self.revisions = {revision for revision in self.revisions if revision > cursor}
