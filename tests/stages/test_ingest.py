"""`bsjax ingest` from a table to images that a run reads, against a server that errs."""

import collections
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python import array_record_module

from bsjax.core.artifacts import check_files, read_manifest
from bsjax.core.errors import UserError
from bsjax.data.sources import list_source
from bsjax.ingest import collect
from bsjax.ingest.settings import Settings
from bsjax.stages.ingest import ingest
from tests.ingest.server import KINDS, picture, serve

REPO = pathlib.Path(__file__).resolve().parents[2]
QUICK = {
    "allow_private": True, "timeout": 5.0, "retries": 1, "per_host": 64, "max_megabytes": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def web():
    with serve() as web:
        yield web


def write_table(path, web, kinds):
    """One row for each of `kinds`; returns the kinds by address."""
    urls = [web.url(kind, n) for n, kind in enumerate(kinds)]
    captions = [f"caption {n}" for n in range(len(kinds))]
    pq.write_table(pa.table({"url": urls, "caption": captions}), path)
    return dict(zip(urls, kinds, strict=True))


def mixed(n, without=("hang", "drip")):
    """Kinds of which a fifth goes wrong, each in its turn; without those that take long."""
    wrong = [k for k, outcome in KINDS.items() if outcome != "kept" and k not in without]
    right = [kind for kind, outcome in KINDS.items() if outcome == "kept"]
    return [wrong[i // 5 % len(wrong)] if i % 5 == 0 else right[i % len(right)] for i in range(n)]


def records(folder):
    for path in sorted(folder.glob("shard-*")):
        reader = array_record_module.ArrayRecordReader(str(path), "")
        yield from map(msgpack.unpackb, reader.read_all())
        reader.close()


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_nothing_good_is_lost_and_each_loss_has_its_reason(web, tmp_path):
    kinds = write_table(tmp_path / "t.parquet", web, mixed(100, without=()))
    told = QUICK | {"timeout": 3.0}
    settings = Settings(str(tmp_path / "t.parquet"), images=1000, **told)
    manifest = ingest(tmp_path, settings, per_shard=30)
    folder = tmp_path / "ingested"
    table = pq.read_table(folder / "attrition.parquet").to_pylist()
    assert len(table) == 100
    for row in table:
        assert row["outcome"] == KINDS[kinds[row["url"]]], row
        assert row["outcome"] == "kept" or row["detail"]
    expected = collections.Counter(KINDS[kind] for kind in kinds.values())
    counts = manifest["counts"]
    assert {name: counts[name] for name in expected} == dict(expected)
    assert counts["asked"] == counts["rows"] == 100 and expected["kept"] == 80
    assert "80 of the 1000 images" in manifest["notes"][0]

    images, _ = list_source("arrayrecord", str(folder))
    assert len(images.records) == 80 and len(list(folder.glob("shard-*"))) == 3
    kept = [row for row in table if row["outcome"] == "kept"]
    for record, row, read in zip(records(folder), kept, images.records, strict=True):
        n = int(row["url"].rpartition("/")[2])
        assert record["image"] == picture(n) == read.read() and read.caption == f"caption {n}"
        assert record["key"] == f"{row['row']:09d}" and record["url"] == row["url"]
        assert row["sha256"] == hashlib.sha256(record["image"]).hexdigest()
    check_files(folder, read_manifest(folder, "ingest"))
    assert not (folder / ".partial").exists()


def test_the_sample_depends_on_the_seed_and_not_on_who_answers_first(web, tmp_path):
    write_table(tmp_path / "t.parquet", web, mixed(200))

    def run(name, **settings):
        told = Settings(str(tmp_path / "t.parquet"), images=40, **QUICK | settings)
        ingest(tmp_path / name, told, per_shard=16)
        return contents(tmp_path / name / "ingested")

    first = run("a")
    assert run("b", connections=3, per_host=2) == first
    assert run("c", seed=1)["shard-00000.arrayrecord"] != first["shard-00000.arrayrecord"]
    table = pq.read_table(tmp_path / "a" / "ingested" / "attrition.parquet").to_pylist()
    assert sum(row["outcome"] == "kept" for row in table) == 40
    assert table[-1]["outcome"] == "kept"  # no row behind the last image counts


def test_no_more_is_asked_for_than_may_be_needed(web, tmp_path):
    write_table(tmp_path / "t.parquet", web, ["good"] * 600)
    web.asked.clear()
    settings = Settings(str(tmp_path / "t.parquet"), images=10, **QUICK)
    ingest(tmp_path, settings)
    assert 10 <= web.asked.total() <= 10 + collect.SPARE + 2 * 10


def test_images_that_look_the_same_are_kept_once(web, tmp_path):
    urls = [web.url("good", 1), web.url("chunked", 1), web.url("good", 2), web.url("slow", 2)]
    pq.write_table(pa.table({"url": urls, "caption": list("abcd")}), tmp_path / "t.parquet")
    for bits, expected in ((4, 2), (-1, 4)):
        settings = Settings(
            str(tmp_path / "t.parquet"), images=9, duplicate_bits=bits, **QUICK
        )  # fmt: skip
        manifest = ingest(tmp_path / str(bits), settings)
        assert manifest["counts"]["kept"] == expected
        assert manifest["counts"]["duplicate"] == 4 - expected
    table = pq.read_table(tmp_path / "4" / "ingested" / "attrition.parquet").to_pylist()
    twins = {row["detail"] for row in table if row["outcome"] == "duplicate"}
    assert all(detail.startswith("as row ") for detail in twins)


def test_a_finished_ingest_is_not_repeated_and_another_is_refused(web, tmp_path):
    write_table(tmp_path / "t.parquet", web, ["good"] * 20)
    settings = Settings(str(tmp_path / "t.parquet"), images=5, **QUICK)
    ingest(tmp_path, settings)
    web.asked.clear()
    ingest(tmp_path, settings._replace(connections=2))
    assert not web.asked
    with pytest.raises(UserError, match="images was 5 and is now 6"):
        ingest(tmp_path, settings._replace(images=6))
    assert ingest(tmp_path, settings._replace(images=6), overwrite=True)["counts"]["kept"] == 6


class Killed(BaseException):
    """As if the process were gone."""


@pytest.mark.parametrize("n_before", [1, 13, 47])
def test_an_interrupted_ingest_goes_on_to_the_same_end(web, tmp_path, monkeypatch, n_before):
    write_table(tmp_path / "t.parquet", web, mixed(80))
    settings = Settings(str(tmp_path / "t.parquet"), images=60, **QUICK)
    ingest(tmp_path / "whole", settings, per_shard=10)

    from bsjax.ingest.book import Book

    add, calls = Book.add, []

    def killing(self, place, *rest):
        add(self, place, *rest)
        calls.append(place)
        if len(calls) == n_before:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Book, "add", killing)
        ingest(tmp_path / "cut", settings, per_shard=10)
    journal = tmp_path / "cut" / "ingested" / ".partial" / "journal.jsonl"
    with open(journal, "ab") as file:
        file.write(b"cut off in the mid")
    web.asked.clear()
    ingest(tmp_path / "cut", settings, per_shard=10)
    assert contents(tmp_path / "cut" / "ingested") == contents(tmp_path / "whole" / "ingested")
    paths = {"/" + "/".join(url.split("/")[3:]) for url in _urls(tmp_path / "cut")}
    asked_again = [path for path in web.asked if path in paths]
    assert len(asked_again) <= 80 - n_before + 5


def _urls(folder):
    return pq.read_table(folder / "ingested" / "attrition.parquet")["url"].to_pylist()


@pytest.mark.parametrize("damage", ["shard", "body", "journal"])
def test_what_was_damaged_meanwhile_is_fetched_again(web, tmp_path, monkeypatch, damage):
    write_table(tmp_path / "t.parquet", web, ["good"] * 60)
    settings = Settings(str(tmp_path / "t.parquet"), images=45, **QUICK)
    ingest(tmp_path / "whole", settings, per_shard=10)

    from bsjax.ingest.book import Book

    def killing(self):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Book, "finish", killing)
        ingest(tmp_path / "cut", settings, per_shard=10)
    folder = tmp_path / "cut" / "ingested"
    bodies = sorted((folder / ".partial").glob("*.bin"))
    assert len(bodies) >= 5  # of the last shard
    path = {"shard": folder / "shard-00001.arrayrecord", "body": bodies[0],
            "journal": folder / ".partial" / "journal.jsonl"}[damage]  # fmt: skip
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    ingest(tmp_path / "cut", settings, per_shard=10)
    assert contents(folder) == contents(tmp_path / "whole" / "ingested")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"images": 0}, "--images=0: expected from 1 up"),
        ({"tries": 0}, "--tries=0: expected from 1 up"),
        ({"seed": -1}, "--seed=-1: expected from 0 up"),
        ({"duplicate_bits": 64}, "--duplicate_bits=64: expected from -1 to 63"),
        ({"timeout": float("nan")}, "--timeout=nan: expected from 0.01 up"),
        ({"max_megabytes": float("inf")}, "--max_megabytes=inf: expected"),
        ({"downloader": "wget"}, "--downloader=wget: expected aiohttp or img2dataset"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read(tmp_path, told, said):
    with pytest.raises(UserError, match=said):
        ingest(tmp_path, Settings("none.csv")._replace(**told))


def test_no_image_at_all_is_one_line(web, tmp_path):
    write_table(tmp_path / "t.parquet", web, ["missing"] * 5 + ["page"] * 2)
    settings = Settings(str(tmp_path / "t.parquet"), images=5, **QUICK)
    with pytest.raises(UserError, match="none of 7 addresses gave an image .most often: dead"):
        ingest(tmp_path, settings)


def test_private_networks_are_refused_unless_allowed(web, tmp_path):
    write_table(tmp_path / "t.parquet", web, ["good"] * 3)
    settings = Settings(str(tmp_path / "t.parquet"), images=3, **QUICK | {"allow_private": False})
    with pytest.raises(UserError, match="most often: refused_address"):
        ingest(tmp_path, settings)


def run_command(*arguments):
    environment = os.environ | {"PYTHONPATH": str(REPO), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-m", "bsjax.main", "ingest", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_command_survives_sigkill_and_tells_what_came(web, tmp_path):
    write_table(tmp_path / "t.parquet", web, ["slow"] * 150 + ["missing"] * 30)
    line = (
        f"--source={tmp_path / 't.parquet'}", "--images=100", f"--workdir={tmp_path / 'w'}",
        "--allow_private", "--per_host=2",
    )  # fmt: skip
    journal = tmp_path / "w" / "ingested" / ".partial" / "journal.jsonl"
    first = run_command(*line)
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 20):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = run_command(*line[:-1], "--per_host=64")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "ingested: 100 of" in said and "--config.real.source=arrayrecord" in said
    wrong = run_command(*line[1:])
    _, said = wrong.communicate(timeout=120)
    assert wrong.returncode == 2 and "--source is missing" in said and "--source=TABLE" in said
