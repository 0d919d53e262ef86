"""Finds the type of a version's outputs: it is declared, or learned from the first answer.

A learned type has open lengths, whatever the first answer's were: the next answer may have others, and only a
declaration promises that it has not.
"""

from clipper.control.snapshot import VersionSnapshot
from clipper.model.protocol.messages import Welcome
from clipper.values.outputs.conversion import Conversion, learn_type
from clipper.values.outputs.output import Output
from clipper.values.records import ValueType, parse_type, with_open_lengths


class OutputTyping:
    """The type of a version's outputs. A declared type stays, and so does a learned type unless one is declared later.

    Attributes:
        declared: converts every output to the declared type; None if none is declared.
    """

    def __init__(self, snapshot: VersionSnapshot) -> None:
        self.declared: Conversion | None = None
        self._learned: Conversion | None = None
        if snapshot.output_type is not None:
            self._take(parse_type(snapshot.output_type), is_declared=snapshot.output_is_declared)

    def take(self, welcome: Welcome) -> None:
        """Take the type that a container says. The snapshot's type comes first."""
        if welcome.output_type is not None:
            self._take(welcome.output_type, is_declared=welcome.output_is_declared)

    def _take(self, output_type: ValueType, *, is_declared: bool) -> None:
        if is_declared and self.declared is None:
            self.declared = Conversion(output_type)
        elif not is_declared and self._learned is None:
            self._learned = Conversion(with_open_lengths(output_type), is_declared=False)

    @property
    def type(self) -> ValueType | None:
        """The type that was told; None if none was."""
        known = self.declared or self._learned
        return None if known is None else known.type

    def conversion(self, recent: Output | None) -> Conversion | None:
        """Return a conversion of outputs to their type, for clients that need the same type for all.

        It is None as long as no output has come, or if no type fits the first output.

        Args:
            recent: an output, from which the type is learned if nothing has told it.
        """
        # No part of a long text is kept.
        if self.declared is None and self._learned is None and recent is not None and recent != b"":
            learned = learn_type(recent)
            if learned is not None:
                self._take(learned, is_declared=False)
        return self.declared or self._learned
