"""A file that is not what was written is told from the one that was."""

import hashlib
import json
import os

import numpy as np
import pytest

from bsjax.core import artifacts, checksums
from bsjax.core.errors import UserError


@pytest.fixture
def finished(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.parquet").write_bytes(b"0123456789")
    (tmp_path / "deep" / "b [1].npz").write_bytes(b"abc")
    (tmp_path / ".hidden").write_bytes(b"x")
    artifacts.write_manifest(
        tmp_path, stage="measure", config={"a": 1}, parents={}, counts={"n": 5}
    )
    return tmp_path


def test_a_manifest_lists_every_file(finished):
    manifest = artifacts.require_manifest(finished, "measure")
    assert set(manifest["files"]) == {"a.parquet", "deep/b [1].npz"}
    assert manifest["files"]["deep/b [1].npz"] == {
        "size": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    artifacts.check_files(finished, manifest)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            lambda f: f.write_bytes(b"0123456788"),
            "a.parquet is damaged or another file: .* got 10",
        ),
        (lambda f: f.write_bytes(b"01234"), "got 5 of"),
        (lambda f: f.unlink(), "a.parquet is missing"),
    ],
)
def test_other_files_are_one_line_that_names_the_stage(finished, damage, told):
    manifest = artifacts.require_manifest(finished, "measure")
    damage(finished / "a.parquet")
    checksums._known.clear()
    with pytest.raises(UserError, match=f"{told}.*run `bsjax measure --overwrite`") as error:
        artifacts.check_files(finished, manifest)
    assert "\n" not in str(error.value)
    artifacts.check_files(finished, manifest, ["deep/b [1].npz"])
    with pytest.raises(UserError, match="is not among the files"):
        artifacts.check_files(finished, manifest, ["c"])


def test_a_file_is_hashed_once(finished, monkeypatch):
    path = finished / "a.parquet"
    os.utime(path, (1, 1))
    first = checksums.prove(path)
    monkeypatch.setattr(checksums.hashlib, "sha256", None)
    assert checksums.prove(path) == first
    os.utime(path, (2, 2))
    with pytest.raises(TypeError):
        checksums.prove(path)


def test_a_manifest_proves_itself(finished):
    path = finished / "manifest.json"
    whole = path.read_text()
    changed = json.loads(whole)
    changed["counts"]["n"] = 6
    path.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="is damaged.*run `bsjax measure --overwrite`"):
        artifacts.require_manifest(finished, "measure")
    path.write_text(whole)
    with pytest.raises(UserError, match="expected one of compare, got one of measure"):
        artifacts.require_manifest(finished, "compare")
    for text in ("[]", "\x00", '{"schema_version": 1, "stage": "measure"}'):
        path.write_text(text)
        with pytest.raises(UserError):
            artifacts.read_manifest(finished)
    with pytest.raises(UserError, match="schema version 1, .*run `bsjax measure --overwrite`"):
        artifacts.read_manifest(finished)


def test_a_damaged_config_of_a_run_in_progress_is_written_anew(tmp_path):
    def begin(a):
        return artifacts.begin_stage(tmp_path, config={"a": a}, parents={}, overwrite=False)

    begin(1)
    identity = artifacts.identity_of(tmp_path)
    (tmp_path / "config.json").write_text('{"config": {"a": 1}, "parents": {}}')
    begin(1)
    assert artifacts.identity_of(tmp_path) == identity != ""
    (tmp_path / "config.json").write_text("{")
    begin(2)
    assert artifacts.identity_of(tmp_path) != identity


def test_every_bit_of_checked_arrays_counts(tmp_path):
    path = tmp_path / "x.npz"
    arrays = {
        "a": np.arange(3.0),
        "words": np.array(["one", "eins"]),
        "none": np.zeros((0, 2), np.int8),
        "n": np.int64(5),
    }
    checksums.save_arrays(path, "here", **arrays)
    found = checksums.load_arrays(path, "here")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(ValueError, match="not what was written here"):
        checksums.load_arrays(path, "elsewhere")
    with pytest.raises(FileNotFoundError):
        checksums.load_arrays(tmp_path / "y.npz", "here")
    whole = path.read_bytes()
    n_found = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found = checksums.load_arrays(path, "here")
        except ValueError:
            n_found += 1
        else:  # a byte that means nothing, such as the date of an entry
            assert set(found) == set(arrays)
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[name], array)
    assert n_found > len(whole) / 2


def test_arrays_of_other_names_types_and_shapes_are_others():
    def total(**arrays):
        return checksums.sum_of_arrays({name: np.asarray(a) for name, a in arrays.items()})

    base = total(a=np.arange(6, dtype=np.int32))
    assert base != total(b=np.arange(6, dtype=np.int32))
    assert base != total(a=np.arange(6, dtype=np.int64))
    assert base != total(a=np.arange(6, dtype=np.int32).reshape(2, 3))
    assert base != total(a=np.arange(6, dtype=np.uint32))


def test_seals():
    sealed = checksums.seal({"a": (1, 2), "b": {"c": float("nan")}}, "x")
    again = json.loads(json.dumps(sealed))
    assert checksums.is_sealed(again, "x") and not checksums.is_sealed(again)
    again["a"][0] = 2
    assert not checksums.is_sealed(again, "x")
    assert not checksums.is_sealed([]) and not checksums.is_sealed({"sha256": 1})


@pytest.mark.parametrize("change", ["size", "file"])
def test_a_file_of_the_same_time_is_hashed_anew(tmp_path, change):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    first = checksums.prove(path)
    if change == "size":
        path.write_bytes(b"longer")
    else:
        (tmp_path / "b").write_bytes(b"two")
        os.replace(tmp_path / "b", path)
    os.utime(path, (1, 1))
    assert checksums.prove(path).sha256 != first.sha256


def test_all_of_a_long_file_counts(tmp_path):
    content = bytes(range(256)) * (checksums.BLOCK // 256 * 2) + b"end"
    (tmp_path / "a").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert checksums.prove(tmp_path / "a") == (len(content), expected)


def test_files_are_listed_in_order_without_hidden_ones(tmp_path):
    names = ["z", "b/y", "b/a", "a/.x", ".hidden/x", "c"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [*checksums.list_files(tmp_path, but=("c",))] == ["z", "b/a", "b/y"]


def test_a_folder_in_place_of_a_file_is_one_line(finished):
    manifest = artifacts.require_manifest(finished, "measure")
    (finished / "a.parquet").unlink()
    (finished / "a.parquet").mkdir()
    with pytest.raises(UserError, match="a.parquet cannot be read .Is a directory.; run"):
        artifacts.check_files(finished, manifest)


def test_sums_do_not_depend_on_the_order_of_keys():
    assert checksums.sum_of({"a": 1, "b": 2}) == checksums.sum_of({"b": 2, "a": 1})
    assert checksums.sum_of({"a": 1}, "\ud83d") != checksums.sum_of({"a": 1}, "x")
    sealed = checksums.seal({10: "ten", 9: "nine"})  # JSON has names alone, in another order
    assert checksums.is_sealed(json.loads(json.dumps(sealed)))
    assert checksums.seal(checksums.seal({"a": 1})) == checksums.seal({"a": 1})


def test_the_order_of_bytes_counts_that_of_names_does_not():
    one = np.array([1, 2], "<i4")
    other = one.view(">i4")
    assert checksums.sum_of_arrays({"a": one}) != checksums.sum_of_arrays({"a": other})
    named = {"a": one, "b": one + 1}
    turned = dict(reversed(named.items()))
    assert checksums.sum_of_arrays(named) == checksums.sum_of_arrays(turned)


def test_nothing_in_checked_arrays_is_unpickled(tmp_path):
    class Shout:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "was run"),))

    np.savez(tmp_path / "x.npz", a=np.array([Shout()], object), sha256=np.array("x"))
    with pytest.raises(ValueError, match="damaged"):
        checksums.load_arrays(tmp_path / "x.npz")
    assert not (tmp_path / "was run").exists()
