"""Ready-made command lines with an input of the right shape."""

import json
import math
import shlex
from pathlib import Path

from clipper.types import DType, InputType

# A short program in the line makes longer inputs, to keep the line readable.
_MAX_ELEMENTS = 16
# Length of open dimensions; any would do.
_OPEN_LENGTH = 3


def curl_line(query_url: str, application: str, input_type: str, certificate: Path | None = None) -> str:
    """A shell line that asks for one prediction; ``certificate`` is the server's, if it uses TLS."""
    url = f"{query_url}/{application}/predict"
    if certificate is not None:
        url = f"--cacert {shlex.quote(str(certificate))} {url}"
    kind = InputType.parse(input_type)
    lengths = [length or _OPEN_LENGTH for length in kind.shape]
    if math.prod(lengths) <= _MAX_ELEMENTS:
        return f"curl {url} -d '{json.dumps({'input': _small(kind.dtype, lengths)})}'"
    expression = str(_zero(kind.dtype))
    for length in reversed(lengths):
        expression = f"[{expression}]*{length}"
    program = f'import json; print(json.dumps({{"input": {expression}}}))'
    return f"python3 -c '{program}' | curl {url} -d @-"


def _small(dtype: DType, lengths: list[int]) -> object:
    value: object = _zero(dtype)
    for length in reversed(lengths):
        value = [value] * length
    return value


def _zero(dtype: DType) -> bool | float | int | str:
    if dtype is DType.STRING:
        return "some text"
    if dtype is DType.BYTES:
        return "AAEC"  # base64 of 0, 1, 2
    if dtype is DType.BOOL:
        return False
    return 0.0 if dtype in (DType.FLOAT32, DType.FLOAT64) else 0
