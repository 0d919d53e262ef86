"""Remembers what the JSON of infer requests with binary tensors says: requests with equal shapes have the same."""

import re
from collections.abc import Sequence

import msgspec

from clipper.worker.frontend.inference.requests import Plan

# Remembered plans, and how much JSON. Most clients send one or a few forms; a client that varies it fills the memory
# up. A tensor takes about 100 bytes, and a record has one for each field.
MAX_PLANS, MAX_PLANS_BYTES = 256, 512 * 1024
_NAME = b'"binary_data_size":'
_SIZE = re.compile(_NAME + rb" ?(0|[1-9][0-9]{0,9})")


class KnownPlans:
    """Plans by their JSON; with elements of BYTES, whose sizes vary, by the JSON without the sizes of the data."""

    def __init__(self) -> None:
        self._by_text: dict[bytes, Plan] = {}
        # With the places of the tensors of BYTES.
        self._by_form: dict[bytes, tuple[Plan, list[int]]] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._by_text) + len(self._by_form)

    def find(self, text: bytes) -> Plan | None:
        plan = self._by_text.get(text)
        if plan is None and self._by_form:
            form, sizes = _form(text)
            known = self._by_form.get(form)
            return None if known is None else _with_sizes(*known, sizes)
        return plan

    def remember(self, text: bytes, plan: Plan) -> None:
        if not plan.is_binary or plan.form.id:
            return
        if len(self) >= MAX_PLANS or self._held_bytes + len(text) > MAX_PLANS_BYTES:
            self._by_text.clear()
            self._by_form.clear()
            self._held_bytes = 0
        texts = [place for place, each in enumerate(plan.order) if not each.tensor.datatype.size_bytes]
        if not texts:
            self._by_text[text] = plan
            self._held_bytes += len(text)
            return
        form, sizes = _form(text)
        # They differ if a text has the same characters, or a key comes twice.
        if tuple(sizes) == plan.sizes and form not in self._by_form:
            self._by_form[form] = plan, texts
            self._held_bytes += len(form)


def _with_sizes(plan: Plan, texts: Sequence[int], sizes: Sequence[int]) -> Plan | None:
    """Return the plan for binary data of these sizes; None if those of numbers are others."""
    expected = list(plan.sizes)
    for place in texts:
        expected[place] = sizes[place]
    return msgspec.structs.replace(plan, sizes=tuple(sizes)) if expected == sizes else None


def _form(text: bytes) -> tuple[bytes, list[int]]:
    """Return JSON without the numbers of its ``binary_data_size``, and these."""
    parts = _SIZE.split(text)
    return _NAME.join(parts[::2]), list(map(int, parts[1::2]))
