"""Rows of tables: of every format the same, in a seeded order, damaged ones in one line."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from bsjax.core.errors import UserError
from bsjax.ingest import candidates
from bsjax.ingest.candidates import Candidate, Fields, draw, random_rows

N = 500
URLS = [f"http://a.test/{i}.jpg" for i in range(N)]
CAPTIONS = [f'caption {i}, with "quotes"\nand lines, é' for i in range(N)]


def write(folder, kind):
    table = pa.table({"id": range(N), "url": URLS, "TEXT": CAPTIONS, "size": [1.5] * N})
    path = folder / f"table.{kind}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=64)
    elif kind == "folder":
        path.mkdir()
        for i, start in enumerate(range(0, N, 120)):
            pq.write_table(table.slice(start, 120), path / f"part-{i}.parquet")
        (path / "_SUCCESS").write_text("", encoding="utf-8")
    elif kind in ("csv", "tsv", "csv.gz"):
        options = pa_csv.WriteOptions(delimiter="\t" if kind == "tsv" else ",")
        plain = folder / "plain"
        pa_csv.write_csv(table, plain, options)
        data = plain.read_bytes()
        path.write_bytes(gzip.compress(data) if kind == "csv.gz" else data)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
        path.write_bytes(gzip.compress(lines) if kind.endswith("gz") else lines)
    return str(path)


KINDS = ["parquet", "folder", "csv", "tsv", "csv.gz", "jsonl", "ndjson", "jsonl.gz"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_rows_in_the_same_order(kind, tmp_path):
    found = draw(write(tmp_path, kind), 50, seed=3)
    rows = random_rows(N, 50, 3).tolist()
    assert found.candidates == [Candidate(i, URLS[i], CAPTIONS[i].strip()) for i in rows]
    assert found.n_rows == N and found.n_malformed == 0


def test_all_rows_are_there_where_more_are_asked_for(tmp_path):
    found = draw(write(tmp_path, "parquet"), 10 * N, seed=0)
    assert sorted(each.row for each in found.candidates) == list(range(N))


@pytest.mark.parametrize("shuffled", [candidates.SHUFFLED, 100])
def test_the_order_is_random_without_repeats_and_longer_samples_begin_with_shorter(
    shuffled, monkeypatch
):
    monkeypatch.setattr(candidates, "SHUFFLED", shuffled)
    n_rows = 5000
    found = random_rows(n_rows, 400, 7)
    assert len(set(found.tolist())) == 400 and found.min() >= 0 and found.max() < n_rows
    assert (random_rows(n_rows, 123, 7) == found[:123]).all() or shuffled == 100
    assert (random_rows(n_rows, 400, 7) == found).all()
    assert (random_rows(n_rows, 400, 8) != found).any()
    # Uniform: over many seeds every tenth of the rows gets its share.
    counts = np.zeros(10)
    for seed in range(60):
        counts += np.bincount(random_rows(n_rows, 400, seed) * 10 // n_rows, minlength=10)
    expected = 60 * 400 / 10
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_few_of_many_rows_are_drawn_without_a_permutation_of_all(tmp_path):
    found = random_rows(10**12, 1000, 0)
    assert len(set(found.tolist())) == 1000 and found.max() > 10**11


def test_columns_may_be_named(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"adresse": URLS, "titre": CAPTIONS, "caption": ["x"] * N}), path)
    found = draw(str(path), 3, 0, Fields("adresse", "titre"))
    assert all(each.caption == CAPTIONS[each.row].strip() for each in found.candidates)
    with pytest.raises(UserError, match="expected a column url or URL.*--url_field"):
        draw(str(path), 3, 0)
    with pytest.raises(UserError, match="expected a column nom, got.*--caption_field"):
        draw(str(path), 3, 0, Fields("adresse", "nom"))
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"adresse": "http://a/1", "titre": "one"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="got 'adresse', 'titre'; set --url_field"):
        draw(str(lines), 3, 0)


def test_rows_without_address_or_caption_are_told(tmp_path):
    path = tmp_path / "t.jsonl"
    lines = [
        '{"url": "http://a/1", "text": "one"}', '{"url": null, "text": "two"}',
        '{"url": "http://a/3", "text": "  "}', '{"url": 4, "text": "four"}', "no json", "[1]",
        '{"url": "http://a/7"}', '{"text": "x", "url": "http://a/8", "more": {}}',
    ]  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")
    found = sorted(draw(str(path), 10, 0).candidates)
    assert found == sorted(draw(str(path), 10, 1).candidates)  # whichever comes first
    assert [each.fault for each in found] == [
        "", "malformed", "without_caption", "malformed", "malformed", "malformed",
        "without_caption", "",
    ]  # fmt: skip


def test_lines_of_another_width_are_counted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("url,caption\nhttp://a/1,one\nhttp://a/2,two,three\nhttp://a/3,x\n", "utf-8")
    found = draw(str(path), 10, 0)
    assert found.n_rows == 2 and found.n_malformed == 1
    assert sorted(each.caption for each in found.candidates) == ["one", "x"]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl.gz"])
def test_damaged_tables_are_one_line(kind, tmp_path):
    path = tmp_path / f"t.{kind}"
    path.write_bytes(b"\xff\xfe\x00 damaged" * 100)
    with pytest.raises(UserError, match="t." + kind.replace(".", r"\.")):
        draw(str(path), 10, 0)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{}/none.parquet", "names no file"), ("{}/x.png", "is none"), ("{}", "names no file"),
        ("./a/b", "names no file"), ("none.parquet", "names no file"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_one_line(source, words, tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(UserError, match=f"{words}.*--source"):
        draw(source.format(tmp_path), 10, 0)


def test_an_empty_table_is_one_line(tmp_path):
    pq.write_table(pa.table({"url": pa.array([], "string")}), tmp_path / "e.parquet")
    with pytest.raises(UserError, match="holds no row"):
        draw(str(tmp_path / "e.parquet"), 10, 0)


def test_quotes_in_a_tsv_file_stand_for_themselves(tmp_path):
    """One that is not closed would take the lines behind it into its caption."""
    captions = ["plain", '"not closed', '5" disk', '"closed"', '"he said ""no"""', '"a" and "b"']
    lines = [f"http://a.test/{i}\t{caption}" for i, caption in enumerate(captions)]
    (tmp_path / "t.tsv").write_text("\n".join(["url\tcaption", *lines]))
    found = draw(str(tmp_path / "t.tsv"), 9, seed=0)
    assert found.n_rows == 6 and found.n_malformed == 0
    told = [each.caption for each in sorted(found.candidates)]
    assert told == ["plain", '"not closed', '5" disk', "closed", 'he said "no"', '"a" and "b"']


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_lines_within_quotes_are_counted(tmp_path, ending):
    """A caption may have several lines; a quote that is never closed takes rows with it."""
    lines = [
        "url,caption", "http://a/1,one", '"http://a/2","two', 'lines"', 'http://a/3,"never closed',
        "http://a/4,lost", "http://a/5,lost", 'http://a/6,"closed"', "", "http://a/7,seven",
    ]  # fmt: skip
    opened = gzip.open if ending.endswith("gz") else open
    with opened(tmp_path / f"t{ending}", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    found = draw(str(tmp_path / f"t{ending}"), 9, seed=0)
    assert found.n_rows + found.n_malformed + found.n_inside == 8  # lines of text but the first
    assert found.n_inside == 1 + 3
    path = tmp_path / "plain.csv"
    path.write_text("\n".join(["url,caption", 'http://a/1,"one"', "", "http://a/2,two", ""]))
    assert draw(str(path), 9, seed=0).n_inside == 0


def test_halves_of_characters_are_told_by_one_that_stands_for_them(tmp_path):
    row = json.dumps({"url": "http://a.test/\ud800", "caption": "half \udfff"})
    (tmp_path / "t.jsonl").write_text(row)
    (found,) = draw(str(tmp_path / "t.jsonl"), 9, seed=0).candidates
    assert (found.url, found.caption) == ("http://a.test/\ufffd", "half \ufffd")
