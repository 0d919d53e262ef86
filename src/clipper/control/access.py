"""What a worker lets those do who dial its control channel."""

from clipper.control.difference import EPOCH_BITS
from clipper.control.identity import PeerName
from clipper.control.messages import AnyCommand, Apply, ApplyDifference, Drain, GetStatistics, Observe
from clipper.errors import Forbidden

# What workers ask each other for: feedback that came to the wrong one, and counts, which the Open Inference Protocol
# shows over all workers.
_OF_WORKERS = (Observe, GetStatistics)


class Access:
    """``heard``: the latest epoch of a supervisor that this worker has obeyed; 0 before the first."""

    def __init__(self, heard: int = 0) -> None:
        self.heard = heard

    def admit(self, caller: PeerName | None, command: AnyCommand) -> None:
        """Check that a caller may send a command, and note the epoch for which it speaks.

        Args:
            caller: the name in its certificate; None over a unix socket, which only this user may dial.

        Raises:
            Forbidden: it may not. The message has its name.
        """
        if caller is not None and caller.role == "worker" and not isinstance(command, _OF_WORKERS):
            raise Forbidden(f"{caller} may not send {type(command).__name__}: only a supervisor may")
        epoch = _epoch_of(command)
        if epoch is None:
            if caller is not None and isinstance(command, Drain):
                raise Forbidden(f"{caller} has to say for which epoch it sends Drain")
            return
        who = "the supervisor on this machine" if caller is None else str(caller)
        if caller is not None and epoch > caller.number:
            raise Forbidden(f"{who} may not speak for epoch {epoch}")
        # Over a unix socket an old snapshot is answered by what is in force, as ever: that is how a supervisor whose
        # registry was restored learns that its workers are ahead.
        if epoch < self.heard and (caller is not None or isinstance(command, Drain)):
            raise Forbidden(
                f"{who} sent {type(command).__name__} for epoch {epoch}, and this worker obeys epoch {self.heard}"
            )
        self.heard = max(self.heard, epoch)


def _epoch_of(command: AnyCommand) -> int | None:
    """The epoch of the supervisor that sends it; None if the command changes nothing, or does not say."""
    match command:
        case Apply(snapshot=told) | ApplyDifference(difference=told):
            return told.generation >> EPOCH_BITS
        case Drain(epoch=epoch):
            return epoch
        case _:
            return None
