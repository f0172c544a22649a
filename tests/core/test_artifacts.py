"""Artifacts appear whole or not at all, and manifests guard what was made."""

import errno
import json
import os

import pytest

from bsjax.core import artifacts
from bsjax.core.errors import UserError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with pytest.raises(KeyError), artifacts.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert list(path.parent.iterdir()) == []
    with artifacts.atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_failed_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(UserError, match="no space left"), artifacts.atomic_path(path):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), artifacts.atomic_path(tmp_path / "x"):
        raise PermissionError(13, "Permission denied")


def test_hash_does_not_depend_on_key_order():
    assert artifacts.hash_json({"a": 1, "b": [2]}) == artifacts.hash_json({"b": [2], "a": 1})
    assert artifacts.hash_json({"a": 1}) != artifacts.hash_json({"a": 2})


def begin(folder, config, parents=None, overwrite=False):
    return artifacts.begin_stage(
        folder, config=config, parents=parents or {"p": "1"}, overwrite=overwrite
    )


def test_a_finished_stage_is_returned_and_a_changed_one_refused(tmp_path):
    assert begin(tmp_path, {"a": 1, "b": 2}) is None
    with pytest.raises(UserError, match="a was 1 and is now 3; c was 'unset' and is now 4"):
        begin(tmp_path, {"a": 3, "b": 2, "c": 4})  # also while it is unfinished
    artifacts.write_manifest(
        tmp_path, stage="s", config={"a": 1, "b": 2}, parents={"p": "1"}, counts={"n": 5}
    )
    assert begin(tmp_path, {"a": 1, "b": 2})["counts"] == {"n": 5}
    with pytest.raises(UserError, match="p was made anew"):
        begin(tmp_path, {"a": 1, "b": 2}, {"p": "2"})
    assert begin(tmp_path, {"a": 3}, overwrite=True) is None
    assert not (tmp_path / artifacts.MANIFEST).exists()


def test_manifest_says_what_it_was_made_from(tmp_path):
    artifacts.write_manifest(tmp_path, stage="s", config={"a": 1}, parents={"p": "1"}, counts={})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest) >= {"stage", "config", "config_hash", "parents", "versions", "counts"}
    assert "jax" in manifest["versions"] and "bsjax" in manifest["versions"]


def test_foreign_and_damaged_manifests_are_one_line(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        artifacts.read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema_version": 99}')
    with pytest.raises(UserError, match="schema version 99"):
        artifacts.read_manifest(tmp_path)
    with pytest.raises(UserError, match="run `bsjax measure` to the end first"):
        artifacts.require_manifest(tmp_path / "none", "measure")


def test_a_start_from_before_there_were_checksums_still_says_its_config(tmp_path):
    artifacts.write_json(tmp_path / "config.json", {"config": {"seed": 99}, "parents": {}})
    with pytest.raises(UserError, match="another config: seed was 99 and is now 1"):
        artifacts.begin_stage(
            tmp_path, config={"seed": 1}, parents={}, overwrite=False, stage="measure"
        )
    artifacts.begin_stage(
        tmp_path, config={"seed": 99}, parents={}, overwrite=False, stage="measure"
    )
    assert artifacts.identity_of(tmp_path)


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_files_are_as_readable_as_the_user_wants(tmp_path, umask):
    before = os.umask(umask)
    try:
        artifacts.write_json(tmp_path / "x.json", {})
        assert os.umask(umask) == umask  # and it stays what it was
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_full_quota_are_one_line(tmp_path, number):
    with pytest.raises(UserError, match="no space left"), artifacts.explain_full_disk(tmp_path):
        raise OSError(number, os.strerror(number))


def test_the_hash_of_a_manifest_is_of_config_and_parents(tmp_path):
    def write(config, parents):
        return artifacts.write_manifest(
            tmp_path, stage="s", config=config, parents=parents, counts={}
        )

    first = write({"a": 1}, {"p": "1"})
    assert len(first["config_hash"]) == 16
    again = write({"a": 1}, {"p": "1"})
    assert again == first and again["files"] == {}  # the one that is there does not list itself
    assert write({"a": 1}, {"p": "2"})["config_hash"] != first["config_hash"]
    assert write({"a": 2}, {"p": "1"})["config_hash"] != first["config_hash"]


def test_what_is_killed_while_it_is_removed_counts_as_unfinished(tmp_path, monkeypatch):
    artifacts.write_manifest(tmp_path, stage="s", config={"a": 1}, parents={"p": "1"}, counts={})

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, {"a": 2}, overwrite=True)
    assert artifacts.read_manifest(tmp_path) is None


def test_a_changed_start_is_damaged_and_no_start_from_before_there_were_checksums(tmp_path):
    assert begin(tmp_path, {"a": 1}) is None
    content = artifacts.read_json(tmp_path / "config.json")
    artifacts.write_json(tmp_path / "config.json", content | {"config": {"a": 2}})
    assert begin(tmp_path, {"a": 1}) is None
    assert artifacts.read_json(tmp_path / "config.json") == content


def test_keys_that_either_side_lacks_differ():
    assert artifacts.differing_keys({"a": 1, "b": 2}, {"b": 2, "c": 3}) == ["a", "c"]
    assert artifacts.differing_keys({"a": None}, {}) == ["a"]


def test_json_is_readable_and_a_bottomless_one_is_one_line(tmp_path):
    path = tmp_path / "x.json"
    artifacts.write_json(path, {"ä": "žluťoučký"})
    assert "žluťoučký" in path.read_text(encoding="utf-8")
    path.write_text("[" * 200_000)
    with pytest.raises(UserError, match="is not valid JSON"):
        artifacts.read_json(path)
