"""A start's options are kept for the next one, and each start uses them."""

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from clipper.errors import InvalidArgument
from clipper.settings.fields import settings_of
from clipper.settings.server import ServerSettings
from clipper.settings.start_options import (
    FORMAT,
    MAX_BYTES,
    StartOption,
    StartOptions,
    changes,
    decode,
    encode,
    ends_workers,
    start_options,
    texts,
    with_kept,
)

# A value of each setting that is not its default. A new setting needs one here.
VALUES: dict[str, Any] = {
    "host": "::1", "management_host": "10.0.0.1", "allowed_host": ("a", "b"), "insecure": True, "open_metrics": True,
    "api_keys": True, "allowed_origin": ("*",), "tls_cert": Path("/c"), "tls_key": Path("/k"),
    "tls_client_ca": Path("/ca"), "query_port": 0, "grpc_port": "off", "management_port": 0, "workers": 2,
    "workers_per_node": 1, "cache_bytes": 0, "max_body_bytes": 65536,
    "max_output_bytes": 65536, "store": "sqlite:/s",
    "registry": "file:/address", "max_contexts": 1, "feedback_queries": 1, "keep_versions": 1, "keep_previous": 0,
    "remember_in_store": True,
    "decision_log_bytes": 2**30 + 1, "run_as": "nobody", "start_method": "forkserver", "idle_after_s": 1.5,
    "ready_when": "all", "drain_delay_s": 2.0, "manager": "docker", "docker_base_image": "image",
    "docker_network": "host", "docker_transport": "tcp", "ray_address": "h:1",
    "ray_ports": "2000-3000", "ray_python": Path("/python"),
    "log_format": "json", "log_level": "debug", "access_log": 0.5, "slow_query_ms": 9.0,
    "otlp_endpoint": "http://h:4318", "trace_share": 1.0,
}  # fmt: skip


def options(**values: Any) -> StartOptions:
    return start_options(values, {}, "start")


def test_there_is_a_value_of_each_setting() -> None:
    assert VALUES.keys() == {described.name for described in settings_of(ServerSettings)}
    usual = ServerSettings()
    assert [name for name, value in VALUES.items() if value == getattr(usual, name)] == []


@given(st.sets(st.sampled_from(sorted(VALUES))))
def test_what_is_kept_comes_back_as_it_was(names: set[str]) -> None:
    values = {name: VALUES[name] for name in names}
    kept = decode(encode(options(**values)))
    assert kept.values() == values
    assert changes(kept, options(**values)) == []
    again = with_kept(options(), kept, has_file=False)
    assert again.values() == values
    assert {again.source(name) for name in VALUES} <= {"kept", "default"}
    # An option that is kept once more still names its first source.
    assert {one.given for one in decode(encode(again)).options.values()} <= {"command line"}


@given(st.sets(st.sampled_from(sorted(VALUES))), st.sets(st.sampled_from(sorted(VALUES))))
def test_what_is_given_comes_before_what_is_kept(given_names: set[str], kept_names: set[str]) -> None:
    usual = ServerSettings()
    now = with_kept(
        options(**{name: VALUES[name] for name in given_names}),
        options(**{name: getattr(usual, name) for name in kept_names}),
        has_file=False,
    )
    for name in VALUES:
        expected = "command line" if name in given_names else "kept" if name in kept_names else "default"
        assert now.source(name) == expected
    assert {name: now.values()[name] for name in given_names} == {name: VALUES[name] for name in given_names}


def test_a_file_replaces_what_an_earlier_file_said_and_nothing_else() -> None:
    kept = start_options({"workers": 4, "api_keys": True, "host": "::1"}, {"workers": "file", "host": "file"}, "start")
    again = with_kept(start_options({"host": "::"}, {"host": "file"}, "start"), kept, has_file=True)
    assert again.values() == {"host": "::", "api_keys": True}
    assert with_kept(options(), kept, has_file=False).values() == kept.values()


@pytest.mark.parametrize(
    "address",
    ["redis://:w0rd@h/0", "rediss://u:w0rd@h", "redis://h/0?password=w0rd", "unix://:w0rd@/s", "redis://[w0rd"],
)
def test_a_secret_is_neither_kept_nor_shown_and_has_to_be_given_again(address: str) -> None:
    start = options(store=address, workers=2)
    assert b"w0rd" not in encode(start)
    assert "w0rd" not in " ".join(text for _, text in texts(start)) + " ".join(changes(options(), start))
    kept = decode(encode(start))
    with pytest.raises(InvalidArgument, match="give --store again, or set CLIPPER_STORE"):
        with_kept(options(), kept, has_file=False)
    given_again = with_kept(options(store=address), kept, has_file=False)
    assert given_again.values() == {"workers": 2} and given_again.options["store"].is_secret
    assert with_kept(options(store="redis://h/0"), kept, has_file=False).values()["store"] == "redis://h/0"


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({}, {"workers": 4}, ["--workers 4 (was not given)"]),
        ({"workers": 2}, {"workers": 4}, ["--workers 4 (was 2)"]),
        ({"workers": 2}, {}, ["no --workers 2"]),
        ({"api_keys": True}, {}, ["no --api-keys"]),
        ({"api_keys": True}, {"api_keys": False}, ["no --api-keys"]),
        ({}, {"api_keys": True}, ["--api-keys (was not given)"]),
        ({}, {"api_keys": False}, []),
        ({"cache_bytes": 1}, {"cache_bytes": 2}, ["--cache-size 2 (was 1)"]),
        ({"allowed_host": ("a",)}, {"allowed_host": ("a", "b")}, ["--allowed-host a --allowed-host b (was a)"]),
        ({"store": "redis://:p@h"}, {}, ["no --store an address that is not shown"]),
        ({"store": "redis://:p@h"}, {"store": "redis://h"}, ["--store redis://h (was an address that is not shown)"]),
    ],
)
def test_what_differs_is_told_as_options(before: dict[str, Any], now: dict[str, Any], told: list[str]) -> None:
    assert changes(options(**before), options(**now)) == told


@pytest.mark.parametrize(
    ("before", "now", "ends"),
    [
        ({}, {name: value for name, value in VALUES.items() if name in ("workers", "cache_bytes", "api_keys")}, []),
        ({"query_port": 1337}, {}, []),  # which is the default
        ({}, {"query_port": 9}, ["--query-port"]),
        ({}, {"host": "::"}, ["--host"]),
        ({}, {"tls_cert": Path("/c"), "tls_key": Path("/k")}, ["--tls-cert"]),
        ({"tls_cert": Path("/c"), "tls_key": Path("/k")}, {"tls_cert": Path("/d"), "tls_key": Path("/k")}, []),
        ({}, {"store": "redis://:p@h"}, ["--store"]),
    ],
)
def test_which_changes_end_all_workers(before: dict[str, Any], now: dict[str, Any], ends: list[str]) -> None:
    assert ends_workers(options(**before), options(**now)) == ends


def encoded(**fields: Any) -> bytes:
    return msgspec.json.encode({"format": FORMAT, "clipper": "1.2.3", "options": {}} | fields)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", "is damaged"),
        (b"[" * 100_000, "over 65536 bytes"),
        (b" " * (MAX_BYTES + 1), "over 65536 bytes"),
        (encoded(format="one"), "is damaged"),
        (encoded(format=FORMAT + 1, options="of another form"), "was written by Clipper 1.2.3, which is newer"),
        (encoded(options={"turbo": {"given": "file", "value": 1}}), "the option 'turbo', which this Clipper"),
        (encoded(options={"workers": {"given": "file", "value": "two"}}), "an invalid value for --workers"),
        (encoded(options={"workers": {"given": "file", "value": 0}}), "--workers is 0: expected a number from 1"),
        (encoded(options={"api_keys": {"given": "file", "value": 1}}), "an invalid value for --api-keys"),
        (encoded(options={"tls_cert": {"given": "file", "value": 1}}), "an invalid value for --tls-cert"),
        (encoded(options={"ray_ports": {"given": "file", "value": "1-2"}}), "is not a range of ports"),
        (encoded(options={"workers": {"given": "a dream", "value": 1}}), "is damaged"),
    ],
)
def test_what_cannot_be_used_says_why(content: bytes, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        decode(content)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(msgspec.json.encode))
def test_no_content_breaks_it(content: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        decode(content)


def test_a_field_of_a_later_clipper_of_the_same_format_is_no_fault() -> None:
    found = decode(encoded(later=True, options={"workers": {"given": "file", "value": 3, "later": 1}}))
    assert found == replace(StartOptions(), options={"workers": StartOption("file", 3)}, clipper="1.2.3")
