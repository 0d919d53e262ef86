"""Finds the type of a version's outputs: it is declared, or learned from the first answer.

A learned type has open lengths, whatever lengths the first answer had: the next answer may have others, and only a
declaration fixes them. It is learned once: the supervisor records the first type that a container or a worker finds,
and all workers follow the record. If no type describes the first answer, such as an object of objects, the version has
no type, whatever its next answers are. The supervisor records that, too.
"""

from collections.abc import Generator

from clipper.control.snapshot import VersionSnapshot
from clipper.model.protocol.messages import Welcome
from clipper.values.json_types import NoType
from clipper.values.outputs.conversion import Conversion, learning
from clipper.values.outputs.output import Output
from clipper.values.records import ValueType, parse_type, with_open_lengths


class OutputTyping:
    """The type of a version's outputs. A declared type stays. A learned type, or the finding that there is none, gives
    way to a declared type and to the version's record.

    Attributes:
        declared: converts every output to the declared type; None if none is declared.
        is_known: whether a type was declared, recorded or learned, or it is known that there is none.
    """

    def __init__(self, snapshot: VersionSnapshot) -> None:
        self.declared: Conversion | None = None
        self.is_known = False
        self._learned: Conversion | None = None
        self._is_recorded = False
        self.follow(snapshot)

    def follow(self, snapshot: VersionSnapshot) -> None:
        """Take the type from the version's record."""
        if self._is_recorded or not snapshot.knows_outputs:
            return
        self._is_recorded = self.is_known = True
        self._learned = None
        if snapshot.output_type is not None:
            self._take(parse_type(snapshot.output_type), is_declared=snapshot.output_is_declared)

    def take(self, welcome: Welcome) -> None:
        """Take the type that a container reports. If a type is known, only a declared one is taken."""
        if welcome.output_type is not None and (welcome.output_is_declared or not self.is_known):
            self._take(welcome.output_type, is_declared=welcome.output_is_declared)
        self.is_known = self.is_known or welcome.output_is_untyped

    def learning(self, output: Output) -> Generator[None, None, None]:
        """Learn the type from an output, in steps, unless it is known. An output may show no type."""
        try:
            learned = yield from learning(output)
        except NoType:
            self.is_known = True
            return
        if learned is not None and not self.is_known:
            self._take(learned, is_declared=False)

    def _take(self, output_type: ValueType, *, is_declared: bool) -> None:
        self.is_known = True
        if not is_declared:
            self._learned = Conversion(with_open_lengths(output_type), is_declared=False)
        elif self.declared is None:
            self.declared = Conversion(output_type)

    @property
    def type(self) -> ValueType | None:
        """The type; None if it is not known, or if there is none."""
        conversion = self.conversion()
        return None if conversion is None else conversion.type

    def conversion(self) -> Conversion | None:
        """Return the conversion of outputs to their one type, for clients that need one; None without a known type."""
        return self.declared or self._learned

    @property
    def news(self) -> str | None:
        """The text of a learned type that the version's record lacks, empty for none; None if nothing was learned."""
        if not self.is_known or self._is_recorded or self.declared is not None:
            return None
        return "" if self._learned is None else str(self._learned.type)
