"""Addresses of models: what is one, what is shown of it, and what of a store's files is taken."""

import hashlib
from pathlib import Path

import pytest

from clipper.client.packaging import addresses
from clipper.client.packaging.addresses import read_address
from clipper.errors import InvalidArgument

DIGEST = "0" * 64


@pytest.mark.parametrize("text", ["model.joblib", "/a/b.onnx", "scores:Scores", "a.b:c", "./s3", "C:model", ""])
def test_paths_and_code_are_no_addresses(text: str) -> None:
    assert read_address(text) is None


@pytest.mark.parametrize(
    ("text", "shown", "name"),
    [
        ("s3://bucket/a/m.joblib", "s3://bucket/a/m.joblib", "m.joblib"),
        ("https://me:secret@host:8/m.onnx?sig=abc", "https://host:8/m.onnx", "m.onnx"),
        ("http://127.0.0.1:80/m.onnx", "http://127.0.0.1:80/m.onnx", "m.onnx"),
        ("hf://org/model@main/a/m.onnx", "hf://org/model@main/a/m.onnx", "m.onnx"),
        ("models:/digits@champion", "models:/digits@champion", "digits@champion"),
        ("runs:/abc/model", "runs:/abc/model", "model"),
        ("abfs://box@account/m.onnx", "abfs://account/m.onnx", "m.onnx"),
    ],
)
def test_an_address_is_shown_without_its_secrets(text: str, shown: str, name: str) -> None:
    found = read_address(text)
    assert found is not None
    assert (found.text, found.shown, found.name, found.sha256) == (text, shown, name, None)
    pinned = read_address(f"{text}#sha256={DIGEST}")
    assert pinned is not None and (pinned.text, pinned.shown, pinned.sha256) == (text, shown, DIGEST)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/m.onnx", "addresses that begin with ftp: are not known: expected a path, or https://"),
        ("file:///etc/passwd", "addresses that begin with file: are not known"),
        ("http://host/m.onnx", "over http:// others can replace the model"),
        ("https://host/m#v2", "expected #sha256= and 64 of 0-9 and a-f"),
        ("https://[::1/m", "the address is malformed"),
        ("s3:///", "names no model"),
        ("https://host/models/..", "names no model"),  # it would be the folder of all downloads
        ("s3://bucket/../", "names no model"),
    ],
)
def test_addresses_that_cannot_be_fetched(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        read_address(text)


def test_the_parts_of_a_hubs_and_a_registrys_addresses() -> None:
    def hub(text: str) -> object:
        found = read_address(text)
        assert found is not None
        return addresses.read_hub(found)

    def version(text: str) -> object:
        found = read_address(text)
        assert found is not None
        return addresses.read_model_version(found)

    assert hub("hf://org/model") == ("org/model", None, None)
    assert hub("hf://org/model@v1.0") == ("org/model", "v1.0", None)
    assert hub("hf://org/model/onnx/m.onnx") == ("org/model", None, "onnx/m.onnx")
    assert hub("hf://org/model@main/m.onnx") == ("org/model", "main", "m.onnx")
    assert version("models:/digits/3") == ("digits", "3")
    assert version("models:/main.schema.digits@champion") == ("main.schema.digits", "@champion")
    assert version("models:/digits/latest") == ("digits", "latest")
    for text in ("hf://org", "hf://org/model@", "hf://org/a@b@c"):
        with pytest.raises(InvalidArgument, match="expected hf://ORG/MODEL"):
            hub(text)
    for text in ("models:/digits", "models:/@a", "models:/digits@"):
        with pytest.raises(InvalidArgument, match="expected models:/NAME/VERSION"):
            version(text)


def test_safe_weights_are_preferred_to_pickled_ones() -> None:
    names = {"model.safetensors": 5, "pytorch_model.bin": 5, "config.json": 1, ".gitattributes": 1}
    assert addresses.worth_fetching(names) == {"model.safetensors": 5, "config.json": 1}
    assert addresses.worth_fetching({"pytorch_model.bin": 5}) == {"pytorch_model.bin": 5}


def test_a_folders_digest_is_that_of_its_listing(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.joblib").write_bytes(b"x")
    (tmp_path / "a").write_bytes(b"a")
    lines = f"{hashlib.sha256(b'a').hexdigest()}  a\n{hashlib.sha256(b'x').hexdigest()}  b/x.joblib\n"
    assert addresses.digest_of(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()
    assert "x.joblib is a pickle" in str(addresses.pickle_warning(tmp_path, "s3://b/a"))
    assert addresses.pickle_warning(tmp_path / "a", "s3://b/a") is None
