"""Which images a folder holds, their captions, and what each mistake in it says."""

import json
import os
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bsjax.core.errors import UserError
from bsjax.data.captions import BadImage, check_bad, list_folder, pair_keys
from bsjax.data.image_files import SUFFIXES_BY_FORMAT
from bsjax.data.text import Fields


def touch(folder: pathlib.Path, *names: str) -> None:
    """Empty files: nothing here opens an image."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_csv(folder: pathlib.Path, text: str, encoding: str = "utf-8") -> None:
    (folder / "captions.csv").write_text(text, encoding=encoding, newline="")


def refused(folder: pathlib.Path, *expected: str) -> None:
    """Listing the folder raises one line that contains every one of `expected`."""
    with pytest.raises(UserError) as caught:
        list_folder(str(folder))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for part in expected:
        assert part in message


def keys(folder: pathlib.Path, **options) -> list[str]:
    return [record.key for record in list_folder(str(folder), **options).records]


def test_csv_beside_an_images_folder(tmp_path):
    touch(tmp_path / "images", "b.png", "a.jpg", "c.webp", "notes.md")
    write_csv(tmp_path, "image,caption,category\nb.png,A bee.,insects\na.jpg,,\n")
    images = list_folder(str(tmp_path))
    assert [tuple(r)[:3] for r in images.records] == [
        ("a", str(tmp_path / "images" / "a.jpg"), ""),
        ("b", str(tmp_path / "images" / "b.png"), "A bee."),
    ]
    assert images.records[1].extra == {"category": "insects"}
    assert (images.n_listed, images.n_unlisted, images.n_without_caption) == (2, 1, 1)
    assert images.caption_source == "csv" and images.bad == ()


def test_csv_beside_the_images_themselves(tmp_path):
    touch(tmp_path, "b.png", "sub/a.PNG")
    write_csv(tmp_path, "image,caption\nsub/a.PNG,one\nb.png,two\n")
    assert keys(tmp_path) == ["b", "sub/a"]


@pytest.mark.parametrize(
    "name", ["x.png", "images/x.png", "./x.png", "x", "images/x", " x.png ", "images\\x.png"]
)
def test_csv_names_an_image_in_many_ways(tmp_path, name):
    touch(tmp_path / "images", "x.png")
    write_csv(tmp_path, f"image,caption\n{name},caption\n")
    assert keys(tmp_path) == ["x"]


def test_csv_as_spreadsheets_write_it(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    text = 'caption , image\r\n"Two lines,\r\n""quoted""",a.png\r\n\r\nžluťoučký 🐝,b.png\r\n'
    write_csv(tmp_path, text, encoding="utf-8-sig")
    captions = [record.caption for record in list_folder(str(tmp_path)).records]
    assert captions == ['Two lines,\r\n"quoted"', "žluťoučký 🐝"]


def test_rows_shorter_and_longer_than_the_header(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    write_csv(tmp_path, "image,caption,kind\na.png\nb.png,bee,insect,,\n")
    first, second = list_folder(str(tmp_path)).records
    assert (first.caption, first.extra) == ("", {"kind": ""})
    assert (second.caption, second.extra) == ("bee", {"kind": "insect"})
    write_csv(tmp_path, "image,caption,kind\na.png\nb.png,bee,insect,surplus\n")
    refused(tmp_path, "captions.csv, line 3: 4 cells, expected the 3", "comma", "'surplus'")


def test_absent_image_is_counted_not_fatal(tmp_path):
    touch(tmp_path, "a.png")
    write_csv(tmp_path, "image,caption\na.png,here\ngone.png,gone\n,nameless\n")
    images = list_folder(str(tmp_path))
    assert [image.key for image in images.bad] == ["gone.png", "row 3 of captions.csv"]
    assert "absent" in images.bad[0].reason
    assert (len(images.records), images.n_listed) == (1, 3)


@pytest.mark.parametrize("sidecar", ["json", "txt"])
def test_sidecars_as_img2dataset_writes_them(tmp_path, sidecar):
    touch(tmp_path, "00000/000000012.jpg", "00001/000010003.jpg", "00000_stats.json")
    caption = json.dumps({"caption": "A dög.", "url": "x"}) if sidecar == "json" else "A dög.\n"
    path = tmp_path / f"00000/000000012.{sidecar}"
    path.write_text(caption, encoding="utf-8")
    images = list_folder(str(tmp_path))
    assert [(r.key, r.caption) for r in images.records] == [
        ("00000/000000012", "A dög."),
        ("00001/000010003", ""),
    ]
    assert (images.caption_source, images.n_without_caption) == ("sidecar", 1)


def test_no_captions_at_all(tmp_path):
    touch(tmp_path, "b.tiff", "a.gif", "README", ".a.png", "._b.tiff", ".cache/c.png")
    images = list_folder(str(tmp_path))
    assert [r.key for r in images.records] == ["a", "b"]
    assert (images.caption_source, images.n_listed, images.n_unlisted) == ("none", 2, 0)


def test_limit_keeps_the_first_keys(tmp_path):
    touch(tmp_path, "c.png", "a.png", "b.png")
    assert keys(tmp_path, limit=2) == ["a", "b"]
    assert keys(tmp_path, limit=9) == keys(tmp_path) == ["a", "b", "c"]


def test_no_folder_or_no_image(tmp_path):
    refused(tmp_path / "missing", "is no folder", "--config.")
    refused(tmp_path, "holds no image", ".png")
    touch(tmp_path, "notes.txt")
    refused(tmp_path, "holds no image")
    refused(tmp_path / "notes.txt", "is no folder")


@pytest.mark.parametrize("header", ["file,caption", "image,words", "", "\x89PNG"])
def test_csv_without_the_columns(tmp_path, header):
    touch(tmp_path, "a.png")
    write_csv(tmp_path, f"{header}\na.png,one\n")
    found = [repr(name) for name in header.split(",") if name] or ["none"]
    refused(tmp_path, "captions.csv has no column", *found)


def test_csv_without_rows(tmp_path):
    touch(tmp_path, "a.png")
    write_csv(tmp_path, "image,caption\n")
    refused(tmp_path, "names no image")


def test_csv_that_is_not_text(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / "captions.csv").write_bytes(b"image,caption\na.png,caf\xe9\n")
    refused(tmp_path, "captions.csv", "UTF-8")


@pytest.mark.parametrize("second", ["a.png", "images/a.png", "a"])
def test_csv_names_an_image_twice(tmp_path, second):
    touch(tmp_path / "images", "a.png")
    write_csv(tmp_path, f"image,caption\na.png,one\n{second},two\n")
    refused(tmp_path, "a.png more than once")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "images/../../secret.png"])
def test_csv_leaves_the_folder(tmp_path, name):
    touch(tmp_path, "secret.png", "set/images/a.png")
    write_csv(tmp_path / "set", f"image,caption\n{name},one\n")
    refused(tmp_path / "set", "outside")


def test_two_files_with_one_stem(tmp_path):
    touch(tmp_path, "a.png", "a.jpg", "b.png")
    refused(tmp_path, "a.jpg and a.png")
    write_csv(tmp_path, "image,caption\na.png,one\na.jpg,two\n")
    refused(tmp_path, "a.jpg and a.png")
    write_csv(tmp_path, "image,caption\na,one\n")
    refused(tmp_path, "'a'", "a.jpg or a.png")
    # One of the two alone is no mistake.
    write_csv(tmp_path, "image,caption\na.png,one\nb.png,two\n")
    assert keys(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_damaged_sidecar(tmp_path, content):
    touch(tmp_path, "a.png")
    (tmp_path / "a.json").write_bytes(content)
    refused(tmp_path, "a.json")


def test_sidecar_that_is_not_text(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    refused(tmp_path, "a.txt", "UTF-8")


def test_pairs_by_key_in_the_order_of_the_real_set():
    pairing = pair_keys(["a", "b", "d", "e"], ["e", "c", "b"])
    np.testing.assert_array_equal(pairing.rows_real, [1, 3])
    np.testing.assert_array_equal(pairing.rows_generated, [2, 0])
    assert pairing.unpaired_real == ("a", "d")
    assert pairing.unpaired_generated == ("c",)


@pytest.mark.parametrize("generated", [["x"], []])
def test_nothing_to_pair(generated):
    with pytest.raises(UserError, match="no image name in common.*'a'") as caught:
        pair_keys(["a"], generated)
    assert "\n" not in str(caught.value)


def test_check_bad_lists_the_first_ones():
    bad = [BadImage(f"k{i}", "truncated\nhere") for i in range(12)]
    check_bad(bad, 120, 0.1, "--config.real.max_bad")  # exactly the share allowed
    check_bad([], 0, 0.0, "--config.real.max_bad")
    with pytest.raises(UserError) as caught:
        check_bad(bad, 119, 0.1, "--config.real.max_bad")
    message = str(caught.value)
    assert "12 of 119" in message and "k9: truncated here; and 2 more" in message
    assert "--config.real.max_bad" in message and "\n" not in message and "k10" not in message


def captions(folder: pathlib.Path, **options) -> list[str]:
    return [record.caption for record in list_folder(str(folder), **options).records]


@pytest.mark.parametrize("where", [".", "images"])
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("captions.csv", "image,caption\na.png,a dog\n"),
        ("captions.tsv", "image\tcaption\na.png\ta dog\n"),
        ("captions.csv", "caption;image\r\na dog;a.png\r\n"),
        ("metadata.csv", "file_name,text\na.png,a dog\n"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "a dog", "label": 3}\n\n'),
        ("metadata.jsonl", '{"file_name": "a.png", "captions": ["", "a dog", "two"]}'),
        ("a.TXT", "a dog\r\n"),
        ("a.Json", '{"prompt": "a dog"}'),
    ],
)
def test_captions_under_the_usual_names(tmp_path, where, file, text):
    touch(tmp_path / "images", "a.png")
    beside = tmp_path / ("images" if file.lower().startswith("a.") else where)
    (beside / file).write_bytes(text.encode("utf-8-sig"))
    assert captions(tmp_path) == ["a dog"]


def test_tables_in_subfolders_as_hugging_face_has_them(tmp_path):
    touch(tmp_path, "train/a.png", "test/a.png")
    for name in ("train", "test"):
        pq.write_table(
            pa.table({"file_name": ["a.png"], "caption": [f"of {name}"]}),
            tmp_path / name / "metadata.parquet",
        )
    images = list_folder(str(tmp_path))
    assert [(r.key, r.caption) for r in images.records] == [
        ("test/a", "of test"),
        ("train/a", "of train"),
    ]
    assert images.caption_source == "csv" and images.n_unlisted == 0


def test_captions_in_a_field_of_another_name(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "a.json").write_text('{"alt": "a dog"}')
    images = list_folder(str(tmp_path))
    assert (images.n_without_caption, images.caption_source) == (2, "none")
    assert len(images.notes) == 1 and "'alt'" in images.notes[0]
    assert "--config.real.caption_field" in images.notes[0]
    assert captions(tmp_path, fields=Fields(caption="alt")) == ["a dog", ""]
    with pytest.raises(UserError, match="no field 'alto' for captions, only 'alt'"):
        list_folder(str(tmp_path), fields=Fields(caption="alto"))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "alt": "a dog"}')
    (note,) = list_folder(str(tmp_path)).notes
    assert "'file_name', 'alt'" in note
    assert captions(tmp_path, fields=Fields(caption="alt")) == ["a dog"]
    assert captions(tmp_path, fields=Fields("file_name", "file_name")) == ["a.png"]


def test_several_captions_of_an_image(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "a.json").write_text('{"captions": ["one", "two"]}')
    assert captions(tmp_path) == ["one", ""]
    images = list_folder(str(tmp_path), fields=Fields(captions="all"), limit=1)
    assert [(r.key, r.caption, r.cluster) for r in images.records] == [
        ("a#0", "one", "a"),
        ("a#1", "two", "a"),
    ]
    write_csv(tmp_path, "image,caption\na.png,one\nb.png,x\na.png,two\n")
    refused(tmp_path, "more than once", "--config.real.captions=all")
    images = list_folder(str(tmp_path), fields=Fields(captions="all"))
    assert [(r.key, r.caption) for r in images.records] == [
        ("a#0", "one"), ("a#1", "two"), ("b#0", "x"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [("NaN", "float"), ("false", "bool"), ('{"en": "a"}', "dict"), ('["a", ["b"]]', "list")],
)
def test_captions_that_are_no_text_are_bad_records(tmp_path, text, said):
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "a.json").write_text(f'{{"caption": {text}}}')
    images = list_folder(str(tmp_path))
    (bad,) = images.bad
    assert bad.key == "a" and f"its caption is a {said}" in bad.reason
    assert [r.key for r in images.records] == ["b"] and images.n_listed == 2


def test_half_a_surrogate_pair_becomes_valid_text(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / "a.json").write_text('{"caption": "a dog \\ud83d"}')
    assert captions(tmp_path) == ["a dog \ufffd"]
    rows = [
        {"file_name": "a.png", "text": "\ud83d", "by\udc00": "x\udc00"},
        {"file_name": "\ud83d"},
    ]
    text = "\n".join(map(json.dumps, rows))
    (tmp_path / "metadata.jsonl").write_text(text, encoding="ascii")
    images = list_folder(str(tmp_path))
    assert [(r.caption, r.extra) for r in images.records] == [("\ufffd", {"by\ufffd": "x\ufffd"})]
    assert [bad.key for bad in images.bad] == ["\ufffd"]


def test_file_name_that_is_no_utf8_is_a_bad_record(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    os.rename(tmp_path / "a.png", os.path.join(os.fsencode(tmp_path), b"caf\xe9.png"))
    images = list_folder(str(tmp_path))
    assert [(bad.key, "no UTF-8" in bad.reason) for bad in images.bad] == [("caf\ufffd", True)]
    (tmp_path / "b.png").unlink()
    refused(tmp_path, "not one image", "no UTF-8")


def test_names_match_whatever_their_unicode_form(tmp_path):
    touch(tmp_path, "cafe\u0301.png", "b.png")
    (tmp_path / "cafe\u0301.txt").write_text("a cup", encoding="utf-8")
    assert [(r.key, r.caption) for r in list_folder(str(tmp_path)).records] == [
        ("b", ""),
        ("café", "a cup"),
    ]
    write_csv(tmp_path, "image,caption\ncafé.png,a bar\n")
    assert captions(tmp_path) == ["a bar"]
    assert pathlib.Path(list_folder(str(tmp_path)).records[0].path).is_file()


def test_suffixes_are_those_of_the_formats_that_are_read():
    Image.init()
    registered = {}
    for suffix, form in Image.registered_extensions().items():
        registered.setdefault(form, set()).add(suffix)
    for form, suffixes in SUFFIXES_BY_FORMAT.items():
        assert set(suffixes) == registered.get(form, set(suffixes)), form


def test_files_that_are_not_understood_are_named(tmp_path):
    touch(tmp_path, "a.AVIF", "b.heic", "x.txt", "sub/c.jp2")
    (tmp_path / "linked").symlink_to(tmp_path / "sub")
    images = list_folder(str(tmp_path))
    assert [r.key for r in images.records] == ["a", "sub/c"]
    assert sorted(images.not_understood) == ["b.heic", "linked"]
    write_csv(tmp_path, "image,caption\na.AVIF,one\nb.heic,two\n")
    (bad,) = list_folder(str(tmp_path)).bad
    assert ".heic is no kind of image" in bad.reason and "absent" not in bad.reason


def test_texts_behind_links_that_leave_the_folder_are_refused(tmp_path):
    touch(tmp_path, "secret.txt", "own/a.png", "own/b.png", "own/texts/b.txt")
    (tmp_path / "own" / "a.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "own" / "b.txt").symlink_to("texts/b.txt")
    (bad,) = list_folder(str(tmp_path / "own")).bad
    assert bad.key == "a" and "leaves the folder" in bad.reason


def test_linked_images_and_loops(tmp_path):
    touch(tmp_path, "far/a.png", "own/b.png")
    own = tmp_path / "own"
    (own / "a.png").symlink_to(tmp_path / "far" / "a.png")
    (own / "c.png").symlink_to("b.png")
    (own / "loop").symlink_to(own)
    (own / "gone.png").symlink_to(tmp_path / "nothing.png")
    (own / "circle.png").symlink_to("circle.png")
    images = list_folder(str(own))
    assert [r.key for r in images.records] == ["a", "b", "c"]
    assert {bad.key: bad.reason for bad in images.bad} == {
        "gone": "a link to nothing",
        "circle": "a link to nothing",
    }
    images = list_folder(str(own), follow_links=False)
    assert [r.key for r in images.records] == ["b", "c"]
    assert "leaves the folder" in {bad.key: bad.reason for bad in images.bad}["a"]


@pytest.mark.parametrize("name", ["images_a", "images_b"])
def test_lists_a_sample_through_a_link(tmp_path, shared_data, name):
    sample = shared_data / "emoji_mini"
    (tmp_path / "images").symlink_to(sample / name)
    (tmp_path / "captions.csv").symlink_to(sample / "captions.csv")
    refused(tmp_path, "captions.csv is a link that leaves the folder")
    (tmp_path / "captions.csv").unlink()
    shutil.copy(sample / "captions.csv", tmp_path)
    images = list_folder(str(tmp_path))
    assert len(images.records) == images.n_listed > 100
    assert not images.bad and not images.n_unlisted and not images.n_without_caption
    assert set(images.records[0].extra) == {"category", "subcategory"}


def test_one_table_counts_the_one_beside_the_images_folder_first(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png")
    for folder, text in ((tmp_path, "beside"), (tmp_path / "images", "in")):
        (folder / "metadata.csv").write_text(f"file_name,caption\nb.png,metadata {text}\n")
    assert captions(tmp_path) == ["metadata beside"]
    write_csv(tmp_path, "image,caption\na.png,captions.csv\n")
    assert captions(tmp_path) == ["captions.csv"]


def test_images_that_no_row_names_are_counted(tmp_path):
    touch(tmp_path, "a.png", "b.png", "c.png")
    write_csv(tmp_path, "image,caption\na.png,one\ngone.png,two\n,three\n")
    assert list_folder(str(tmp_path)).n_unlisted == 2


def test_rows_whose_caption_is_no_text_are_bad_with_their_line(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    rows = [{"file_name": "a.png", "text": "a dog"}, {"file_name": "b.png", "text": False}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (bad,) = list_folder(str(tmp_path)).bad
    assert bad.key == "b" and bad.reason.startswith("metadata.jsonl, line 2: its caption is a bool")


def test_json_sidecars_come_before_texts(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    for key in "ab":
        (tmp_path / f"{key}.txt").write_text("text")
    (tmp_path / "a.json").write_text('{"caption": "json"}')
    (tmp_path / "b.json").write_text('{"url": "x"}')
    assert captions(tmp_path) == ["json", "text"]


def test_a_field_that_no_sidecar_has_is_refused_also_where_there_is_none(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(UserError, match="no field 'alt' for captions, only none"):
        list_folder(str(tmp_path), fields=Fields(caption="alt"))


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    touch(pathlib.Path(os.fsdecode(folder)), "a.png")
    with pytest.raises(UserError, match="the name is no UTF-8; rename it"):
        list_folder(os.fsdecode(folder))


def test_columns_of_a_table_that_has_more(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    write_csv(tmp_path, "file_name,image,caption\nb.png,a.png,a dog\n")
    assert keys(tmp_path) == ["a"]
    (tmp_path / "captions.csv").unlink()
    row = {"file_name": "a.png", "text": "a dog", "none": None, "boxes": [1, "x"]}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    assert list_folder(str(tmp_path)).records[0].extra == {"boxes": '[1, "x"]'}


def test_lines_of_tables_are_counted_from_one(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    for text, said in (("\n{", "line 2: is no JSON"), ("[" * 200_000, "line 1: is no JSON")):
        (tmp_path / "metadata.jsonl").write_text(text)
        refused(tmp_path, f"metadata.jsonl, {said}")
    (tmp_path / "metadata.jsonl").unlink()
    table = pa.table({"file_name": ["a.png", "b.png"], "text": [[b"a"], [b"\xff"]]})
    pq.write_table(table, tmp_path / "metadata.parquet")
    (bad,) = list_folder(str(tmp_path)).bad
    assert bad.reason.startswith("metadata.parquet, line 2: its caption is no UTF-8")


def test_a_folder_whose_name_begins_the_same_is_another(tmp_path):
    touch(tmp_path, "own/a.png", "own2/a.txt", "own2/b.png")
    (tmp_path / "own" / "a.txt").symlink_to(tmp_path / "own2" / "a.txt")
    (tmp_path / "own" / "b.png").symlink_to(tmp_path / "own2" / "b.png")
    touch(tmp_path, "own/c.png")
    images = list_folder(str(tmp_path / "own"), follow_links=False)
    assert {bad.key for bad in images.bad} == {"a", "b"}
    assert [record.key for record in images.records] == ["c"]


def test_names_that_look_the_same_are_bad(tmp_path):
    touch(tmp_path, "caf\u00e9.png", "cafe\u0301.png", "b.png")
    images = list_folder(str(tmp_path))
    assert [(bad.key, "NFC and NFD" in bad.reason) for bad in images.bad] == [("caf\u00e9", True)]


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path):
        if pathlib.Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("bsjax.data.image_files.os.scandir", refuse)
    images = list_folder(str(tmp_path))
    assert [r.key for r in images.records] == ["a"] and images.not_understood == ("closed/",)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("images/a.png b.png c/d/e.png c/f.txt", ["images outside of images/ (b.png, c/d/e.png)"]),
        ("images/a.png captions.jsonl", ["holds captions.jsonl, which is not looked for"]),
        ("a.png annotations/captions.json", ["holds annotations/captions.json, which is not"]),
        ("a.png labels.csv prompts.csv 0_stats.json .x.csv", ["holds labels.csv, which is not"]),
        ("a.png a.json", []),
        ("a.png a.txt labels.csv", []),
        (
            "a.png captions.csv metadata.jsonl labels.csv",
            ["metadata.jsonl, but captions are those"],
        ),
        ("a.png captions.csv", []),
    ],
)
def test_what_is_passed_over_is_told(tmp_path, names, told):
    for name in names.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        text = {".csv": "image,caption\na.png,A\n", ".json": "{}"}.get(
            name[name.rindex(".") :], "x"
        )
        (tmp_path / name).write_text(text)
    notes = [note for note in list_folder(str(tmp_path)).notes if " holds " in note]
    assert len(notes) == len(told) and all(a in b for a, b in zip(told, notes, strict=True))
