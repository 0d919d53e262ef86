"""Bodies that cost the most for their size: what a stranger would send. Each was the worst of its kind when found."""

from dataclasses import dataclass

# Of these a decoder has to calculate with integers of hundreds of bits: they lie between two floats.
HARD_FLOAT = b"2.22507385850720138309e-308"


@dataclass(frozen=True)
class Costly:
    """A body of any size: ``unit`` as often as it fits between ``head`` and ``tail``."""

    name: str
    input_type: str
    head: bytes
    unit: bytes
    tail: bytes
    action: str = "predict"

    def of(self, size_bytes: int) -> bytes:
        return self.head + self.unit * ((size_bytes - len(self.head) - len(self.tail)) // len(self.unit)) + self.tail

    def __str__(self) -> str:
        return self.name


def _input(
    name: str, input_type: str, unit: bytes, last: bytes = b"1", opening: bytes = b"[", closing: bytes = b"]"
) -> Costly:
    return Costly(name, input_type, b'{"input":' + opening, unit, last + closing + b"}")


def _text(name: str, input_type: str, unit: bytes) -> Costly:
    return Costly(name, input_type, b'{"input":"', unit, b'"}')


def _batch(name: str, input_type: str, unit: bytes) -> Costly:
    return Costly(name, input_type, b'{"input_batch":[', unit + b",", unit + b"]}")


def _observed(name: str, head: bytes, unit: bytes, tail: bytes) -> Costly:
    return Costly(name, "float64[*]", head, unit, tail, "observe")


def _invoked(name: str, input_type: str, head: bytes, unit: bytes, tail: bytes) -> Costly:
    return Costly(name, input_type, head, unit, tail, "invocations")


WIDE_NAMES = [b"f%d" % number for number in range(1000)]
WIDE = ", ".join(f"{name.decode()}: float64" for name in WIDE_NAMES)
_FEEDBACK = b'{"query_id":7,"label":1}'
COSTLY = [
    _input("integers", "int32[*]", b"1,"),
    _input("a float after integers", "int32[*]", b"1,", b"1.0"),
    _input("a text after integers", "int32[*]", b"1,", b'"x"'),
    _input("floats that are integers", "int64[*]", b"1.0,"),
    _input("wide integers", "int64[*]", b"1,"),
    _input("large integers for uint8", "uint8[*]", b"256,"),
    _input("short floats", "float64[*]", b"1,"),
    _input("floats too large", "float32[*]", b"1e39,"),
    _input("hard floats", "float64[*]", HARD_FLOAT + b","),
    _input("long floats", "float64[*]", b"0." + b"123456789" * 80 + b"e-200,"),
    _input("integers of 40 digits", "float64[*]", b"1" * 40 + b","),
    _input("integers of 4,000 digits", "float64[*]", b"1" * 4000 + b","),
    _input("one long number", "float64[*]", b"1"),
    _input("truths", "bool[*]", b"true,"),
    _input("truths as numbers", "bool[*]", b"1,"),
    _input("lists of one", "float64[*,*]", b"[1],", b"[1]"),
    _input("lists in lists in lists", "float32[*,*,*,*]", b"[[[1]]],", b"[[[1]]]"),
    _input("empty lists", "float64[*,*]", b"[],", b"[]"),
    _input("objects", "float64[*]", b"{},"),
    _input("texts for numbers", "float64[*]", b'"",'),
    _input("depth", "float64[*,*]", b"[", b""),
    _input("whitespace", "float64[*]", b" "),
    _text("letters", "string", b"a"),
    _text("characters of four bytes", "string", "😀".encode()),
    _text("escapes", "string", b"\\u0041"),
    _text("pairs of surrogates", "string", b"\\ud83d\\ude00"),
    _text("backslashes", "string", b"\\\\"),
    _text("quotes", "string", b'\\"'),
    _text("no UTF-8", "string", b"\xff"),
    _text("base64", "bytes", b"AAAA"),
    _text("base64 in escapes", "bytes", b"\\/\\/\\/\\/"),
    _text("base64 of nothing", "bytes", b"===="),
    _text("a picture's base64", "uint8[2,2]", b"AAAA"),
    _batch("scalars", "float64[]", b"1"),
    _batch("batch of lists", "float64[*]", b"[1]"),
    _batch("batch of texts", "string", b'""'),
    _batch("batch of objects", "float64[*]", b"{}"),
    _batch("batch of hard floats", "float64[]", HARD_FLOAT),
    _batch("batch of what is wrong", "float64[2,2]", b'[[1,2],[3,"' + b"x" * 900 + b'"]]'),
    Costly("keys", "float64[*]", b'{"input":[1]', b',"a":1', b"}"),
    Costly("equal keys", "float64[*]", b'{"input":[1]', b',"input":[1]', b"}"),
    Costly("a long context", "float64[*]", b'{"input":[1],"context":"', b"a", b'"}'),
    Costly("a context of digits", "float64[*]", b'{"input":[1],"context":', b"1", b"}"),
    Costly("what is not known", "float64[*]", b'{"input":[1],"other":[', b"1,", b"1]}"),
    Costly("gzip", "float64[*]", b"\x1f\x8b\x08\0", b"\x91\xff", b"1"),
    Costly("a record of other fields", "a: float64", b'{"input":{"a":1', b',"b":1', b"}}"),
    Costly("a record of one field", "a: float64", b'{"input":{"a":1', b',"a":1', b"}}"),
    Costly("a record's long name", "a: float64", b'{"input":{"a":1,"', b"\\u0041", b'":1}}'),
    Costly("a record's text in escapes", "a: string", b'{"input":{"a":"', b"\\u0041", b'"}}'),
    Costly("a record's long number", "a: float64", b'{"input":{"a":', b"1", b"}}"),
    Costly("a record's depth", "a: float64", b'{"input":{"a":', b"[", b"}}"),
    Costly("a record's hard floats", "a: float64[*]", b'{"input":{"a":[', HARD_FLOAT + b",", b"1]}}"),
    Costly("columns of null", "a: float64?, b: uint8[1000]?", b'{"input_columns":{"a":[', b"null,", b"null]}}"),
    Costly("columns of objects", "a: string", b'{"input_columns":{"a":[', b"{},", b"{}]}}"),
    Costly("columns of texts", 'a: string{"x"}', b'{"input_columns":{"a":[', b'"x",', b'"x"]}}'),
    _batch("records", "a: float64, b: string?", b'{"a":1}'),
    _batch("records that are wrong", "a: float64, b: string?", b'{"a":"' + b"x" * 900 + b'"}'),
    _batch("records of defaults", 'a: string = "%s"' % ("x" * 10_000), b"{}"),
    _invoked(
        "rows of a table", "a: float64, b: string?", b'{"dataframe_split":{"columns":["a"],"data":[', b"[1],", b"[1]]}}"
    ),
    _invoked("a row of a table", "float64[*]", b'{"dataframe_split":{"columns":["a"],"data":[[', b"1,", b"1]]}}"),
    _invoked("names of columns", "a: float64", b'{"dataframe_split":{"columns":["a"', b',"a"', b'],"data":[[1]]}}'),
    _invoked("NaN", "float64[*]", b'{"instances":[[', b"NaN,", b"1]]}"),
    _invoked("NaN in a text", "a: string", b'{"instances":[{"a":"', b"NaN", b'"}]}'),
    _invoked("parameters", "a: float64", b'{"instances":[{"a":1}],"params":{"a":1', b',"b":1', b"}}"),
    _invoked("rows of CSV", "a: float64", b"a,b\n", b"1,2\n", b""),
    _invoked("blank lines of CSV", "a: float64", b"a\n", b"\n", b"1\n"),
    _invoked("line feeds in a cell of CSV", "a: string", b'a\n"', b"\n", b'"\n'),
    _invoked("cells of CSV", "a: float64", b"a\n", b",", b"\n"),
    _invoked("wide rows of CSV", WIDE, b"%b\n" % b",".join(WIDE_NAMES), b",".join([b"0.5"] * 1000) + b"\n", b""),
    _observed("observations that are none", b'{"observations":[', b"1,", b"1]}"),
    _observed("observations", b'{"observations":[', _FEEDBACK + b",", _FEEDBACK + b"]}"),
    _observed("observations on inputs", b'{"observations":[', b'{"label":1,"input":[1]},', b"1]}"),
    _observed("an observed input", b'{"label":1,"input":[', b"1,", b"1]}"),
    _observed("a label", b'{"input":[1],"label":[', b"1,", b"1]}"),
    _observed("labels", b'{"observations":[', b'{"query_id":7,"label":[%b1]},' % (b"1," * 1000), b"1]}"),
    _observed("long ids", b'{"observations":[', b'{"query_id":7,"label":1,"id":"%b"},' % (b"\\u0041" * 201), b"1]}"),
]
