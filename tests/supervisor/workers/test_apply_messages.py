"""Which message a worker gets, and that it is made once for all workers that need the same."""

from msgspec.structs import replace

from clipper.base.tls.material import TlsMaterial
from clipper.control.messages import Apply, ApplyDifference, decode_command
from clipper.control.snapshot import ApplicationSnapshot, Snapshot
from clipper.supervisor.workers.apply_messages import MAX_KEPT, ApplyMessages

FIRST = Snapshot(1, (ApplicationSnapshot("a", "float64", 20.0),))
SECOND = replace(FIRST, generation=2, applications=(*FIRST.applications, ApplicationSnapshot("b", "float64", 20.0)))


def test_a_worker_without_a_base_gets_the_whole_and_others_the_difference() -> None:
    messages = ApplyMessages()
    whole = messages.make(FIRST, None, None, False)
    assert whole.is_whole and decode_command(whole.body[4:]) == Apply(FIRST)
    difference = messages.make(SECOND, 1, None, True)
    assert isinstance(difference.command, ApplyDifference) and not difference.is_whole
    assert decode_command(difference.body[4:]) == difference.command
    assert difference.command.difference.applications == SECOND.applications[1:]
    assert difference.command.is_stopping
    assert messages.make(SECOND, 7, None, False).is_whole, "no generation of ours"


def test_each_message_is_encoded_once() -> None:
    messages = ApplyMessages()
    tls = TlsMaterial(b"certificate", b"key")
    messages.make(FIRST, None, None, False)
    first = messages.make(SECOND, 1, tls, False)
    assert messages.make(SECOND, 1, TlsMaterial(b"certificate", b"key"), False) is first
    assert messages.make(SECOND, None, tls, False) is messages.make(SECOND, 0, tls, False)
    for other in (messages.make(SECOND, 2, tls, False), messages.make(SECOND, 1, None, False)):
        assert other is not first


def test_a_worker_that_is_behind_is_told_the_newest() -> None:
    messages = ApplyMessages()
    messages.make(FIRST, None, None, False)
    messages.make(SECOND, None, None, False)
    late = messages.make(FIRST, None, None, False).command
    assert isinstance(late, Apply) and late.snapshot is SECOND


def test_few_messages_are_kept() -> None:
    messages = ApplyMessages()
    snapshots = [replace(FIRST, generation=generation) for generation in range(1, 4 * MAX_KEPT)]
    for one in snapshots:
        messages.make(one, None, None, False)
    for base in range(1, 4 * MAX_KEPT):
        messages.make(snapshots[-1], base, None, False)
        assert len(messages._kept) <= MAX_KEPT
