"""Which of a store's changes this process has made, so that it need not read again what it knows.

Each commit has a revision of its own, and a state keeps the revision of its last change. Whoever commits adds the same
to memory. So a state whose last change is of this process has to be read again only if somebody else changed it after
the follower had last looked, and before that change.
"""

from collections.abc import Iterable

from clipper.selection.stores.gathered_reads import State

# A follower looks four times a second, and a commit takes milliseconds. If nobody follows, nothing is kept.
MAX_KEPT = 10_000


class OwnChanges:
    """
    Attributes:
        followed: the cursor up to which the follower knows of changes; -1 if there is no follower.
        revisions: of own commits since then.
        overlapped: states that others changed since then, too, before an own commit, with its revision.
    """

    def __init__(self) -> None:
        self.followed = -1
        self.revisions: set[int] = set()
        self.overlapped: dict[State, int] = {}

    def commit(self, revision: int, others: Iterable[State]) -> None:
        """A commit of this process is stored, and will be added to memory.

        Args:
            others: states that it changed and whose last change before it was later than ``followed``, and by another
                process.
        """
        if self.followed >= 0:
            self.revisions.add(revision)
            self.overlapped.update(dict.fromkeys(others, revision))
            if len(self.revisions) + len(self.overlapped) > MAX_KEPT:
                self.distrust()

    def distrust(self) -> None:
        """A commit may not have been added to memory: the follower is to read again whatever has changed."""
        self.followed = -1

    def known(self, cursor: int) -> tuple[set[int], set[State]]:
        """Return, for a follower that knows of changes up to ``cursor``, the revisions that it need not know of.

        Also return the states that it has to know of nevertheless.
        """
        if cursor != self.followed or cursor < 0:
            return set(), set()
        return set(self.revisions), set(self.overlapped)

    def follow(self, cursor: int) -> None:
        """The follower is told of all changes up to ``cursor``."""
        self.followed = cursor
        # A commit may have been made after the cursor was read.
        self.revisions = {revision for revision in self.revisions if revision > cursor}
        self.overlapped = {state: revision for state, revision in self.overlapped.items() if revision > cursor}
