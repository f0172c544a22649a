"""Addresses of images survive their way through an artifact, whatever characters they have."""

import os

import pytest

from bsjax.core import addresses
from bsjax.core.addresses import Address

AWKWARD = [
    Address("", "/real/a [1]::b.png"),
    Address("", "tfds::x"),
    Address("tfds", "mine/1.0.0", "train[:50%]", 3),
    Address("tfds", "a::b:c", "train[10%:]+test::x", 0),
    Address("arrayrecord", "/data:1/a-*.arrayrecord", "", 12),
    Address("parquet", "/data/[x]/0.parquet", "train", 7),
    Address("scenes", "1", "train", 999_999),
]


@pytest.mark.parametrize("address", AWKWARD)
def test_round_trip(address):
    assert addresses.parse_address(addresses.write_address(address)) == address


def test_what_lies_in_the_workdir_moves_with_it(tmp_path):
    old, new = tmp_path / "old [a]", tmp_path / "new::b"
    old.mkdir()
    for address in (
        Address("", str(old / "images" / "a.png")),
        Address("generated", str(old / "images" / "sd15"), "", 5),
        Address("parquet", str(old / "x" / "*.parquet"), "train", 1),
    ):
        kept = addresses.within(addresses.write_address(address), old)
        assert str(old) not in kept
        found = addresses.parse_address(addresses.find(kept, new))
        assert found == address._replace(path=address.path.replace(str(old), str(new)))


def test_what_lies_elsewhere_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = addresses.within("parquet::train:1:data/*.parquet", tmp_path / "w")
    assert kept == f"parquet::train:1:{tmp_path}/data/*.parquet"
    assert addresses.find(kept, "/elsewhere") == kept
    # Siblings whose names begin alike are elsewhere.
    assert os.path.isabs(addresses.within(str(tmp_path / "w2" / "a.png"), tmp_path / "w"))
    for text in ("tfds::train:1:imagenet2012", "scenes::train:1:4", "gs://bucket/a.png"):
        assert addresses.within(text, tmp_path) == addresses.find(text, tmp_path) == text
