"""YAML as a tree with places: what is refused, and where."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.cli.manifest import document
from clipper.cli.manifest.document import Entries, Fault, Place, Scalar, json_value, lines_of, read_document

REFUSED = [
    (b"", "1:1: the file is empty"),
    (b"# nothing\n", "1:1: the file is empty"),
    (b"~", "1:1: the file is empty"),
    (b"a: 1\nb: 2\na: 3\n", "3:1: the key 'a' is in line 1 already"),
    (b"a:\n  x: 1\n  'x': 2\n", "3:3: the key 'x' is in line 2 already"),
    (b"a: &x [1]\nb: *x\n", "2:4: the alias *x is not allowed"),
    (b"a: &x 1\nb:\n  <<: *x\n", "3:7: the alias *x is not allowed"),
    (b"a: !!python/object/apply:os.system ['true']\n", "1:4: the tag 'tag:yaml.org,2002:python/object/apply"),
    (b"a: !secret x\n", "1:4: the tag '!secret' is not allowed"),
    (b"a: 1\n---\nb: 1\n", "2:1: a second document begins here"),
    (b"? [1, 2]\n: x\n", "1:3: a mapping or list cannot be a key"),
    (b"{{a: 1}: 2}\n", "1:2: a mapping or list cannot be a key"),
    (b"a:\n\tb: 1\n", "a tab is before it: indent with spaces"),
    (b"a:\n- b\n  c: 1\n", "this is not YAML"),
    (b"a: [1, 2\n", "this is not YAML"),
    (b"a: 'x\n", "this is not YAML"),
    (b"a: b: c\n", "1:5: this is not YAML"),
    (b"a: 1\nb: \x00\n", "2:1: the character U+0000 is not allowed"),
    (b"a: 1\nb: \xff\n", "2:1: the file is not a text in UTF-8"),
    (b"[" * 500, "1:33: expected at most 32 mappings and lists within each other"),
    (b"- " * 500, "expected at most 32 mappings and lists within each other"),
    (b"{a: " * 500, "expected at most 32 mappings and lists within each other"),
    (b"[" * 100_000, "this is not YAML: while increasing flow level"),
    (b"a: " + b"x" * document.MAX_BYTES, "1:1: the file is too long"),
]


@pytest.mark.parametrize(("content", "expected"), REFUSED, ids=[text[:40] for _, text in REFUSED])
def test_what_is_refused_and_where(content: bytes, expected: str) -> None:
    _, faults = read_document(content)
    assert expected in "\n".join(lines_of(faults))


def test_a_bomb_of_aliases_costs_no_more_than_its_text() -> None:
    levels = [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 30)]
    root, faults = read_document(b"\n".join(levels))
    assert isinstance(root, Entries) and len(root.entries) == 30
    assert len(faults) == document.MAX_FAULTS


def test_a_file_of_too_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_NODES", 100)
    assert read_document(b"[%s]" % b", ".join([b"1"] * 98))[1] == []
    _, faults = read_document(b"[%s]" % b", ".join([b"1"] * 101))
    assert "expected at most 100 values" in str(faults[0])


def test_all_faults_are_told_at_once_in_the_order_of_the_file() -> None:
    _, faults = read_document(b"a: !x 1\nb: *y\na: 2\n")
    assert [fault.place for fault in sorted(faults)] == [Place(1, 4), Place(2, 4), Place(3, 1)]


def test_more_faults_than_anybody_reads_are_counted() -> None:
    faults = [Fault(Place(line, 1), "", "is wrong") for line in range(1, 61)]
    lines = list(lines_of(faults))
    assert len(lines) == 51 and lines[-1] == "and 10 more"


def test_a_scalar_stays_the_text_of_the_file() -> None:
    root, faults = read_document(b"\xef\xbb\xbfno: yes\n1: 3.10\nx: '3'\n")
    assert faults == [] and isinstance(root, Entries)
    assert [(key.text, value) for key, value in root.entries] == [
        ("no", Scalar("yes", True, Place(1, 5))),
        ("1", Scalar("3.10", True, Place(2, 4))),
        ("x", Scalar("3", False, Place(3, 4))),
    ]


def read_json(content: bytes) -> tuple[object, list[str]]:
    root, faults = read_document(content)
    assert root is not None and faults == []
    value = json_value(root, faults, "x")
    return value, [fault.text for fault in faults]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("true", True),
        ("False", False),
        ("0", 0),
        ("-17", -17),
        ("1.50", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("18446744073709551615", 2**64 - 1),
        ("cat", "cat"),
        ("'1'", "1"),
        ('"no"', "no"),
        ("'~'", "~"),
        ("2024-13", "2024-13"),
    ],
)
def test_a_value_without_a_wanted_type_is_read_as_json(text: str, value: object) -> None:
    read, faults = read_json(f"[{text}]".encode())
    assert read == [value] and type(read[0]) is type(value) and faults == []  # type: ignore[index]


@pytest.mark.parametrize("text", ["no", "Yes", "on", "OFF", "010", "0x1F", "0o17", "1_000", "1:30", "2024-02-29", "08"])
def test_what_has_another_meaning_in_another_version_of_yaml_is_refused(text: str) -> None:
    assert "put it in quotes" in read_json(f"[{text}]".encode())[1][0]


@pytest.mark.parametrize("text", [".nan", "-.inf", "1e999", "9" * 30, "9" * 5000, "18446744073709551616"])
def test_a_number_that_json_has_not_is_refused(text: str) -> None:
    assert len(read_json(f"[{text}]".encode())[1]) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_json_is_yaml_and_is_read_as_it_is(value: object) -> None:
    # YAML has no pairs of surrogates in escapes.
    assert read_json(json.dumps([value], ensure_ascii=False).encode()) == ([value], [])


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    root, faults = read_document(content)
    if root is None:
        assert faults
    else:
        json_value(root, faults, "")
