"""Short batches that are out: any sequence of batches against a plain list of those."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clipper.worker.abstraction.batching.flow import MANY, MAX_OUT_S, Batch, Flow
from tests.works import make_work


class FlowMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.flow = Flow()
        self.now_s = 0.0
        self.out: list[Batch] = []

    @rule(rows=st.integers(1, MANY), is_short=st.booleans())
    def send(self, rows: int, is_short: bool) -> None:
        works = [make_work(b"")] * rows
        batch = Batch(len(self.out), works, self.now_s, 0.0, 0, was_full=False, is_short=is_short)
        self.flow.sent(batch)
        self.out.append(batch)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """In any order, and also one that hung."""
        self.flow.ended(self.out.pop(data.draw(st.integers(0, len(self.out) - 1))))

    @rule(share=st.sampled_from([0.1, 0.6, 1.5]))
    def wait(self, share: float) -> None:
        self.now_s += share * MAX_OUT_S

    @invariant()
    def more_are_expected_of_several_that_are_many(self) -> None:
        expected = [each for each in self.out if each.is_short and each.sent_s >= self.now_s - MAX_OUT_S]
        rows = sum(len(each.works) for each in expected)
        assert self.flow.brings_more(self.now_s) is (len(expected) > 1 and rows >= MANY)
        # Those that hang have been forgotten by now.
        assert self.flow.has_short_batches is bool(expected)


TestFlow = FlowMachine.TestCase


def out(flow: Flow, rows: int, sent_s: float = 0.0, *, is_short: bool = True) -> Batch:
    batch = Batch(1, [make_work(b"")] * rows, sent_s, 0.0, 0, was_full=False, is_short=is_short)
    flow.sent(batch)
    return batch


def test_two_short_batches_of_many_rows_bring_more_until_one_is_answered() -> None:
    flow = Flow()
    assert (flow.arrivals, flow.has_short_batches) == (0, False)
    first = out(flow, MANY - 1)
    assert flow.has_short_batches and not flow.brings_more(0.0)
    out(flow, 1)
    assert flow.brings_more(0.0)
    flow.ended(first)
    assert flow.has_short_batches and not flow.brings_more(0.0)


def test_one_batch_few_rows_or_long_ones_bring_nothing() -> None:
    for batches in ([(MANY, True)], [(MANY - 2, True), (1, True)], [(MANY, True), (MANY, False)]):
        flow = Flow()
        for rows, is_short in batches:
            out(flow, rows, is_short=is_short)
        assert not flow.brings_more(0.0)


def test_a_batch_that_hangs_is_not_waited_for_and_others_are() -> None:
    flow = Flow()
    out(flow, MANY, 0.0)
    for _ in range(2):
        out(flow, MANY, MAX_OUT_S)
    assert flow.brings_more(1.5 * MAX_OUT_S)
    assert not flow.brings_more(2.5 * MAX_OUT_S) and not flow.has_short_batches
