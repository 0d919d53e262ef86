"""Leaves fields out of what the decision log keeps of a query, by their names, before anything is written."""

import msgspec
import numpy as np

from clipper.values.decoding import NOT_JSON
from clipper.values.inputs.record_features import RecordFeatures, field_names
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.outputs.output import Output, OutputNames, TypedOutput, make_record
from clipper.values.records import Field, RecordType, ValueType

# A longer or deeper JSON text is left out as a whole: to look for fields in this much takes a millisecond.
MAX_TEXT_BYTES = 64 * 1024
MAX_DEPTH = 16
_encode = msgspec.json.encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Redaction:
    """Removes an application's redacted fields.

    Args:
        redacted: the names of the fields, in the form of ``--redact``; None if there are none.
        input_type: the application's.
        features: makes the features of its policy from fields; None if they are made otherwise.
        label_field: which of an output's values a label is, if it is no object.

    Attributes:
        is_empty: whether nothing is removed.
        input_type: the type of the inputs without these fields; None if no field is left.
        feature_names: the names of the features that come from other fields.
    """

    def __init__(
        self,
        redacted: str | None,
        input_type: ValueType,
        features: RecordFeatures | None = None,
        label_field: str | None = None,
    ) -> None:
        self._label_field = label_field or "label"
        self._names = frozenset(field_names(redacted) if redacted else ())
        self.is_empty = not self._names
        self._places: list[int] | None = None
        self.feature_names = () if features is None else features.names
        if self._names and features is not None:
            self._places = [place for place, field in enumerate(features.fields) if field not in self._names]
            self.feature_names = tuple(features.names[place] for place in self._places)
        self.input_type: ValueType | None = input_type
        self._whole: RecordRows | None = None
        if isinstance(input_type, RecordType):
            # Keep only the facts that a row's bytes depend on, since each block of the log repeats the type.
            fields = {place: Field(*field.layout) for place, field in enumerate(input_type.fields)}
            self._kept = [place for place, field in fields.items() if field.name not in self._names]
            kept = RecordType(tuple(fields[place] for place in self._kept)) if self._kept else None
            self.input_type = kept
            if kept is not None and len(self._kept) < len(fields):
                self._whole, self._left = RecordRows(input_type), RecordRows(kept)

    def row(self, row: bytes) -> bytes:
        """Return an input of ``input_type``."""
        if self._whole is None:
            return row
        values = self._whole.values(row)
        return self._left.row([values[place] for place in self._kept])

    def features(self, packed: bytes | None) -> bytes | None:
        """Return the features that have ``feature_names``, or those without names, as raw buffers."""
        if packed is None or self._places is None:
            return packed
        return np.frombuffer(packed, "<f8")[self._places].tobytes() if self._places else None

    def output(self, output: Output) -> Output:
        """Return an output without the fields, at any depth within it; empty if it is too long or too deep."""
        if self.is_empty or isinstance(output, TypedOutput):
            return output
        if isinstance(output, bytes):
            return self.text(output)
        values = [(name, part) for name, part in zip(output.of.names, output.parts) if name not in self._names]
        kept = {name: self.text(part) if isinstance(part, bytes) else part for name, part in values}
        if b"" in kept.values():
            return b""
        return make_record(OutputNames(tuple(kept)), tuple(kept.values())) if kept else b"{}"

    def label(self, label: bytes) -> bytes:
        """Return the JSON of a label without the fields; it is empty if it is a redacted field itself."""
        return b"" if self._label_field in self._names and not label.lstrip().startswith(b"{") else self.text(label)

    def text(self, text: bytes) -> bytes:
        """Return JSON without the fields, as ``output`` does."""
        if self.is_empty or b"{" not in text:
            return text
        if len(text) > MAX_TEXT_BYTES:
            return b""
        # A name may be written with escapes, so a text with a backslash is always decoded.
        if b"\\" not in text and not any(name.encode() in text for name in self._names):
            return text
        try:
            return self._without(text, MAX_DEPTH)
        except NOT_JSON:
            return b""

    def _without(self, text: bytes, depth: int) -> bytes:
        if b"{" not in text or text.lstrip()[:1] not in (b"{", b"["):
            return text
        if not depth:
            raise RecursionError
        if text.lstrip()[:1] == b"[":
            return b"[" + b",".join(self._without(bytes(value), depth - 1) for value in _decode_list(text)) + b"]"
        values = _decode_object(text).items()
        kept = {name: self._without(bytes(value), depth - 1) for name, value in values if name not in self._names}
        return _encode({name: msgspec.Raw(value) for name, value in kept.items()})
