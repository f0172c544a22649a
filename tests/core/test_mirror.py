"""Workdirs in an object store: the stages come to what they come to on a disk."""

import os
import pathlib

import pytest
from etils import epath

from bsjax import presets
from bsjax.core import checksums, mirror
from bsjax.core.artifacts import begin_stage, read_json, write_json, write_manifest
from bsjax.stages.compare import compare
from bsjax.stages.generate import generate
from bsjax.stages.measure import measure
from tests.object_store import as_gs


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with as_gs(tmp_path / "store") as store:
        yield store


def finish(folder, **files):
    begin_stage(folder, config={}, parents={}, overwrite=False)
    for name, text in files.items():
        write_json(folder / name, text)
    return write_manifest(folder, stage="x", config={}, parents={}, counts={})


def test_a_folder_is_copied_once_and_anew_when_it_was_made_anew(bucket):
    folder = epath.Path("gs://b/run/x")
    finish(folder, a=1)
    here = mirror.fetch(folder)
    assert isinstance(here, pathlib.Path) and read_json(here / "a") == 1
    stamp = (here / "a").stat().st_mtime_ns
    assert mirror.fetch(folder) == here and (here / "a").stat().st_mtime_ns == stamp
    finish(folder, a=2)
    assert read_json(mirror.fetch(folder) / "a") == 2
    assert not here.exists()  # copies do not pile up
    assert list(mirror.fetch(folder, ["a"]).glob("*")) != list(mirror.fetch(folder).glob("*"))


def test_what_a_block_changes_is_sent_and_manifests_come_last(bucket, monkeypatch):
    workdir = epath.Path("gs://b/run")
    finish(workdir / "x", a=1, b=1)
    write_json(workdir / "sae" / "checkpoints" / "5" / "big", 0)
    with mirror.mirrored(workdir) as place:
        assert not (place / "sae").exists()
        (place / "x" / "b").unlink()
        finish(place / "y" / "z", c=3)
        sent = []
        copy = mirror._copy
        monkeypatch.setattr(
            mirror, "_copy", lambda *a: (sent.append(list(a[2])), copy(*a[:2], sent[-1]))
        )
    assert [sorted(map(os.path.basename, names)) for names in sent] == [
        ["c", "config.json"], ["manifest.json"]
    ]  # fmt: skip
    found = sorted(checksums.list_files(workdir))
    assert found == [
        "sae/checkpoints/5/big", "x/a", "x/config.json", "x/manifest.json", "y/z/c",
        "y/z/config.json", "y/z/manifest.json",
    ]  # fmt: skip


def test_what_a_failing_block_changed_is_not_sent(bucket):
    workdir = epath.Path("gs://b/run")
    finish(workdir / "x", a=1)
    with pytest.raises(ZeroDivisionError), mirror.mirrored(workdir) as place:
        write_json(place / "x" / "a", 2)
        raise ZeroDivisionError
    assert read_json(workdir / "x" / "a") == 1


@pytest.mark.slow
def test_stages_come_to_the_same_in_an_object_store(bucket, tmp_path):
    config = presets.experiment()
    presets.on_scenes(config, 12)
    config.generator.steps, config.generator.images_per_shard = 2, 5
    config.measure.images_per_shard, config.measure.controls = 1, "jpeg"
    config.measure.rank_concept, config.compare.clusters = 3, "none"
    gs, disk = epath.Path("gs://b/runs/x"), epath.Path(tmp_path / "disk")
    for workdir in (gs, disk):
        generate(config, workdir)
        measure(config, workdir)
        with mirror.mirrored(workdir) as place:
            compare(config, place)
    names = list(checksums.list_files(disk))
    assert list(checksums.list_files(gs)) == names
    assert not [path for path in pathlib.Path(bucket.root).rglob("*") if ".partial" in str(path)]
    for name in names:
        assert (gs / name).read_bytes() == (disk / name).read_bytes(), name
