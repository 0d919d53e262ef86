"""Short batches: any sequence of batches against a plain list of those that are out."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clipper.abstraction.batching.dispatcher import Batch
from clipper.abstraction.batching.short_batches import MANY, MAX_OUT_S, ShortBatches
from works import make_work


class ShortBatchesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.batches = ShortBatches()
        self.now_s = 0.0
        self.out: list[Batch] = []

    @rule(rows=st.integers(1, MANY), is_short=st.booleans())
    def send(self, rows: int, is_short: bool) -> None:
        batch = Batch(len(self.out), [make_work(b"")] * rows, self.now_s, was_full=False, is_short=is_short)
        self.batches.sent(batch)
        self.out.append(batch)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """In any order, and also one that hung."""
        self.batches.ended(self.out.pop(data.draw(st.integers(0, len(self.out) - 1))))

    @rule(share=st.sampled_from([0.1, 0.6, 1.5]))
    def wait(self, share: float) -> None:
        self.now_s += share * MAX_OUT_S

    @invariant()
    def more_are_expected_of_several_that_are_many(self) -> None:
        expected = [each for each in self.out if each.is_short and each.sent_s >= self.now_s - MAX_OUT_S]
        rows = sum(len(each.works) for each in expected)
        assert self.batches.bring_more(self.now_s) is (len(expected) > 1 and rows >= MANY)
        # Those that hang have been forgotten by now.
        assert self.batches.are_out is bool(expected)


TestShortBatches = ShortBatchesMachine.TestCase
