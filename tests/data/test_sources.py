"""Images out of ArrayRecord, parquet and tfds are those that were written, in any process."""

import errno
import io
import json
import os
import pickle

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from bsjax.core.errors import UserError
from bsjax.data import record_files
from bsjax.data.images import iterate_batches, load_images
from bsjax.data.record_files import OPEN_FILES, ByteCache
from bsjax.data.sources import list_source, read_image
from bsjax.data.text import Fields, split_and_fields

N = 7


@pytest.fixture(scope="module")
def encoded():
    images = []
    for i in range(N):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format=("PNG", "JPEG", "WEBP")[i % 3])
        images.append(buffer.getvalue())
    return images


def write_arrayrecord(path, records):
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def arrayrecord(folder, encoded):
    write_arrayrecord(folder / "a-00000.arrayrecord", encoded[:4])
    maps = [msgpack.packb({"image": e, "caption": f"c{i + 4}"}) for i, e in enumerate(encoded[4:])]
    write_arrayrecord(folder / "a-00001.arrayrecord", maps)
    return "arrayrecord", str(folder / "a-*.arrayrecord"), [""] * 4 + ["c4", "c5", "c6"]


def parquet(folder, encoded):
    """Two files, row groups of two; images as Hugging Face stores them."""
    rows = [{"image": {"bytes": e, "path": None}, "text": f"t{i}"} for i, e in enumerate(encoded)]
    pq.write_table(pa.Table.from_pylist(rows[:5]), folder / "0.parquet", row_group_size=2)
    pq.write_table(pa.Table.from_pylist(rows[5:]), folder / "1.parquet", row_group_size=2)
    return "parquet", str(folder), [f"t{i}" for i in range(N)]


@pytest.mark.parametrize("make", [arrayrecord, parquet])
def test_records_are_those_written(tmp_path, encoded, make):
    source, path, captions = make(tmp_path, encoded)
    images, _ = list_source(source, path)
    assert len(images.records) == images.n_listed == N
    for i in (6, 0, 3, 5, 1, 4, 2):
        assert images.records[i].read() == encoded[i]
        assert images.records[i].caption == captions[i]
    again = pickle.loads(pickle.dumps(images.records))
    assert again[2].read() == encoded[2]
    assert len(list_source(source, path, limit=3)[0].records) == 3
    batches = list(iterate_batches(again, resize=16, crop=14, batch_size=4, workers=1))
    assert np.concatenate([batch.mask for batch in batches]).sum() == N
    assert len({record.key for record in images.records}) == N


def prepare_tfds(tmp_path, encoded, damage=lambda examples: examples):
    """A prepared dataset as tfds lays it out; writing it through tfds itself takes TensorFlow."""
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(None, None, 3)), "caption": tfds.features.Text()}
    )
    folder = tmp_path / "mine" / "1.0.0"
    folder.mkdir(parents=True)
    features.save_config(str(folder))
    serializer = ExampleSerializer(features.get_serialized_info())
    name = "mine-train.array_record-00000-of-00001"
    examples = [{"image": image, "caption": f"c{i}".encode()} for i, image in enumerate(encoded)]
    write_arrayrecord(folder / name, damage([*map(serializer.serialize_example, examples)]))
    split = {"name": "train", "shardLengths": [str(N)], "numBytes": "1000",
             "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}  # fmt: skip
    info = {"name": "mine", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def test_tfds(tmp_path, encoded):
    folder = prepare_tfds(tmp_path, encoded)
    images, _ = list_source("tfds", str(folder), "train")
    assert len(images.records) == N
    for i in range(N):
        assert images.records[i].read() == encoded[i]
        assert images.records[i].caption == f"c{i}"
    again = pickle.loads(pickle.dumps(images.records))
    assert again[2].read() == encoded[2]


def overwrite(path, what, by):
    """Puts other bytes in the middle of `what` in a file."""
    content = path.read_bytes()
    assert content.count(what) == 1
    place = content.index(what) + len(what) // 2
    path.write_bytes(content[:place] + by + content[place + len(by) :])


def damaged_arrayrecord(folder, encoded):
    write_arrayrecord(folder / "a.arrayrecord", encoded)
    overwrite(folder / "a.arrayrecord", encoded[2], b"xyz")
    return str(folder), [2]


def damaged_arrayrecord_at_its_start(folder, encoded):
    maps = [msgpack.packb({"image": e, "caption": "c"}) for e in encoded]
    write_arrayrecord(folder / "a.arrayrecord", maps)
    overwrite(folder / "a.arrayrecord", encoded[0], b"xyz")
    return str(folder), [0]


def damaged_parquet(folder, encoded):
    """In one of its row groups of two; the writer left checksums of its pages."""
    plain_parquet(folder / "a.parquet", encoded, write_page_checksum=True)
    overwrite(folder / "a.parquet", encoded[2], b"xyz")
    return str(folder), [2, 3]


def parquet_with_damaged_pages(folder, encoded):
    """The header of a page; without checksums."""
    plain_parquet(folder / "a.parquet", encoded)
    with pq.ParquetFile(folder / "a.parquet") as file:
        start = file.metadata.row_group(1).column(0).data_page_offset
    content = bytearray((folder / "a.parquet").read_bytes())
    content[start : start + 16] = bytes([0xFF]) * 16
    (folder / "a.parquet").write_bytes(content)
    return str(folder), [2, 3]


def plain_parquet(path, encoded, **options):
    """Each image stands in it as it is, once."""
    table = pa.table({"image": encoded, "caption": [f"c{i}" for i in range(N)]})
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, path, row_group_size=2, **plain, **options)


def damaged_tfds(folder, encoded):
    path = prepare_tfds(folder, encoded)
    overwrite(path / "mine-train.array_record-00000-of-00001", encoded[2], b"xyz")
    return str(path), [2]


def truncated_examples_of_tfds(folder, encoded):
    return str(prepare_tfds(folder, encoded, lambda e: [e[0], e[1][:-7], *e[2:]])), [1]


@pytest.mark.parametrize(
    ("source", "make"),
    [
        ("arrayrecord", damaged_arrayrecord),
        ("arrayrecord", damaged_arrayrecord_at_its_start),
        ("parquet", damaged_parquet),
        ("parquet", parquet_with_damaged_pages),
        ("tfds", damaged_tfds),
        ("tfds", truncated_examples_of_tfds),
    ],
)
@pytest.mark.parametrize("captions", ["first", "all"])
def test_damaged_records_are_bad_images(tmp_path, encoded, source, make, captions):
    """As a damaged picture of a folder is: counted with a reason; the others are read."""
    path, damaged = make(tmp_path, encoded)
    records = list_source(source, path, fields=Fields(captions=captions))[0].records
    assert len(records) == N and isinstance(records[damaged[0]].caption, str)
    images, mask, bad = load_images(records, N, 28, 28)
    assert [row for row, _ in bad] == damaged and (~mask).nonzero()[0].tolist() == damaged
    for _, reason in bad:
        assert "damaged" in reason or "no example" in reason
        assert path in reason and "\n" not in reason and len(reason) < 700
    with pytest.raises((OSError, ValueError), match="record"):
        read_image(records[damaged[0]].path)


def test_damaged_row_groups_are_read_once(tmp_path, encoded, monkeypatch):
    path, _ = damaged_parquet(tmp_path, encoded)
    records, tries = list_source("parquet", path)[0].records, []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, group, columns: tries.append((group, *columns)) or read(self, group, columns),
    )
    _, mask, _ = load_images(records, N, 28, 28)
    assert mask.sum() == N - 2 and tries.count((1, "image")) == 1


def test_a_disk_that_fails_is_no_damage(tmp_path, encoded, monkeypatch):
    """It may work again: the row group is read anew."""
    path, _ = damaged_parquet(tmp_path, encoded)
    record, read = list_source("parquet", path)[0].records[0], pq.ParquetFile.read_row_group

    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", fail)
    with pytest.raises(OSError, match="Input/output"):
        record.read()
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read)
    assert record.read() == encoded[0]


@pytest.mark.parametrize("source", ["arrayrecord", "parquet"])
def test_a_file_damaged_as_a_whole_is_named_at_once(tmp_path, encoded, source):
    {"arrayrecord": arrayrecord, "parquet": parquet}[source](tmp_path, encoded)
    last = sorted(tmp_path.iterdir())[-1]
    os.truncate(last, last.stat().st_size // 2)
    with pytest.raises(UserError, match=f"{last}: not .*, or truncated .*; download or write it"):
        list_source(source, str(tmp_path))


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        ("arrayrecord", b"nonsense", "not ArrayRecord, or truncated"),
        ("parquet", b"nonsense", "not parquet, or truncated"),
        ("tfds", b"nonsense", "cannot be opened"),
    ],
)
def test_other_files_are_refused(tmp_path, source, content, message):
    file = tmp_path / "x.parquet"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        list_source(source, str(file))
    with pytest.raises(UserError, match="names no|cannot be opened"):
        list_source(source, str(tmp_path / "none*"))


def test_a_table_without_images_is_refused(tmp_path):
    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"expected a column image, got \['picture'\]"):
        list_source("parquet", str(tmp_path))


def pack(folder, maps, name="a.arrayrecord"):
    write_arrayrecord(folder / name, [msgpack.packb(fields) for fields in maps])
    return str(folder / name)


def table(folder, name="a.parquet", **columns):
    pq.write_table(pa.table(columns), folder / name)
    return str(folder)


def images_of(encoded):
    return [{"bytes": e, "path": ""} for e in encoded]


@pytest.mark.parametrize("name", ["caption", "text", "TEXT", "prompt", "captions"])
@pytest.mark.parametrize("image", ["image", "jpg", "png", "webp", "img", "image_bytes"])
def test_columns_of_the_usual_names(tmp_path, encoded, name, image):
    path = table(tmp_path, key=["k"], **{image: encoded[:1], name: ["a dog"]})
    images, _ = list_source("parquet", path)
    assert images.records[0].caption == "a dog" and images.records[0].read() == encoded[0]
    assert images.n_without_caption == 0 and not images.notes


def test_columns_of_other_names(tmp_path, encoded):
    path = table(tmp_path, picture=encoded[:2], alt=["a dog", "a cat"], caption=["x", "y"])
    with pytest.raises(UserError, match="--config.real.image_field"):
        list_source("parquet", path)
    with pytest.raises(UserError, match="no field 'alto' for captions, only 'picture'"):
        list_source("parquet", path, fields=Fields("alto", "picture"))
    images, identity = list_source("parquet", path, fields=Fields("alt", "picture"))
    record = images.records[1]
    assert record.caption == "a cat" and record.read() == encoded[1]
    assert read_image(record.path) == encoded[1]
    assert identity != list_source("parquet", path, fields=Fields("", "picture"))[1]


def test_no_captions_are_told_of(tmp_path, encoded):
    images, _ = list_source("parquet", table(tmp_path, image=encoded[:2], alt=["a", "b"]))
    assert images.n_without_caption == 2
    assert "'image', 'alt'" in images.notes[0] and "caption_field" in images.notes[0]
    images, _ = list_source("arrayrecord", pack(tmp_path, [{"image": encoded[0], "alt": "a"}]))
    assert images.n_without_caption == 1 and "'alt'" in images.notes[0]


@pytest.mark.parametrize(
    ("value", "caption", "is_good"),
    [
        ("a dog", "a dog", True),
        (b"a dog", "a dog", True),
        (["", "a dog", "b"], "a dog", True),
        (None, "", True),
        (b"caf\xe9", "", False),
        (1.5, "", False),
        ({"raw": "a dog"}, "", False),
    ],
)
def test_captions_of_any_type(tmp_path, encoded, value, caption, is_good):
    sources = [
        ("parquet", table(tmp_path, image=images_of(encoded[:1]), caption=[value])),
        ("arrayrecord", pack(tmp_path, [{"image": encoded[0], "caption": value}])),
    ]
    for kind, path in sources:
        record = list_source(kind, path)[0].records[0]
        assert record.caption == caption
        _, mask, bad = load_images([record], 1, 28, 28)
        assert mask[0] == is_good
        assert is_good or "caption" in bad[0][1]


def test_strings_of_parquet_that_are_no_utf8(tmp_path, encoded):
    strings = pa.array([b"caf\xe9", b"caf\xc3\xa9"]).view(pa.string())
    records = list_source("parquet", table(tmp_path, image=encoded[:2], caption=strings))[0].records
    assert [record.caption for record in records] == ["", "café"]
    _, mask, bad = load_images(records, 2, 28, 28)
    assert mask.tolist() == [False, True] and "its caption is no UTF-8 text" in bad[0][1]


@pytest.mark.parametrize("kind", ["parquet", "arrayrecord"])
def test_several_captions_a_record(tmp_path, encoded, kind):
    captions = [["one", "two"], [], ["three"]]
    maps = [{"image": e, "caption": c} for e, c in zip(encoded, captions, strict=False)]
    pack(tmp_path, maps)
    table(tmp_path, image=encoded[:3], caption=pa.array(captions, pa.list_(pa.string())))
    images, _ = list_source(kind, str(tmp_path), fields=Fields(captions="all"))
    records = pickle.loads(pickle.dumps(images.records))
    assert [(r.key, r.caption, r.cluster) for r in records] == [
        ("000000000#0", "one", "000000000"),
        ("000000000#1", "two", "000000000"),
        ("000000001#0", "", "000000001"),
        ("000000002#0", "three", "000000002"),
    ]
    assert [r.read() for r in records] == [encoded[0], *encoded[:3]]
    assert read_image(records[3].path) == encoded[2]
    assert (images.n_listed, images.n_without_caption) == (4, 1)
    assert len(list_source(kind, str(tmp_path), "", 1, Fields(captions="all"))[0].records) == 2
    first = list_source(kind, str(tmp_path))[0].records
    assert [(r.key, r.caption) for r in first][::2] == [
        ("000000000", "one"),
        ("000000002", "three"),
    ]


def test_rows_without_an_image_are_bad_and_keep_their_caption(tmp_path, encoded):
    column = [{"bytes": encoded[0], "path": ""}, None, {"bytes": None, "path": "x.png"}]
    records = list_source("parquet", table(tmp_path, image=column, caption=list("abc")))[0].records
    assert [record.caption for record in records] == ["a", "b", "c"]
    _, mask, bad = load_images(records, 3, 28, 28)
    assert mask.tolist() == [True, False, False] and "no image" in bad[0][1]


def test_maps_without_an_image_are_bad(tmp_path, encoded):
    maps = [{"jpg": encoded[0], "caption": "a"}, {"image": encoded[1]}, {"image": "path.png"}]
    path = pack(tmp_path, maps)
    write_arrayrecord(tmp_path / "b.arrayrecord", [b"\x81nonsense", encoded[2]])
    records = list_source("arrayrecord", str(tmp_path))[0].records
    _, mask, bad = load_images(records, 5, 28, 28)
    assert mask.tolist() == [False, True, False, False, True]
    assert "no image in this record, only 'jpg', 'caption'" in bad[0][1]
    assert "image_field" in bad[0][1] and "msgpack" in bad[2][1]
    records = list_source("arrayrecord", path, fields=Fields(image="jpg"))[0].records
    assert records[0].read() == encoded[0]


def test_leftovers_of_other_programs(tmp_path, encoded):
    table(tmp_path, image=encoded[:2])
    pack(tmp_path, [{"image": encoded[0]}], "a.array_record-00000-of-00001")
    for name in ("._a.parquet", ".a.parquet.crc", "b.parquet.incomplete", "_a.parquet", "_SUCCESS"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("a.arrayrecord.tmp", "._a.arrayrecord", "my.arrayrecords.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert len(list_source("parquet", str(tmp_path))[0].records) == 2
    assert len(list_source("arrayrecord", str(tmp_path))[0].records) == 1


def test_brackets_belong_to_a_name(tmp_path, encoded):
    folder = tmp_path / "set[1]"
    folder.mkdir()
    table(folder, image=encoded[:2])
    for path in (folder, folder / "a.parquet", folder / "*.parquet", folder / "[ab].parquet"):
        assert len(list_source("parquet", str(path))[0].records) == 2


def test_splits_of_parquet_files(tmp_path, encoded):
    for i, split in enumerate(("train", "train", "test")):
        table(tmp_path, f"{split}-{i:05d}-of-00003.parquet", image=encoded[i : i + 1])
    assert len(list_source("parquet", str(tmp_path))[0].records) == 2
    assert len(list_source("parquet", str(tmp_path), "test")[0].records) == 1
    assert len(list_source("parquet", str(tmp_path / "*"))[0].records) == 3
    with pytest.raises(UserError, match="splits test, train, not 'val'; set --config.real.split"):
        list_source("parquet", str(tmp_path), "val")
    table(tmp_path, "odd.parquet", image=encoded[:1])
    with pytest.raises(UserError, match="odd.parquet, which is of none; set --config.real.path"):
        list_source("parquet", str(tmp_path))


@pytest.mark.parametrize("kind", ["parquet", "arrayrecord"])
def test_few_files_are_open_at_a_time(tmp_path, encoded, kind):
    for i in range(90):
        if kind == "parquet":
            table(tmp_path, f"{i:03d}.parquet", image=encoded[i % N : i % N + 1])
        else:
            write_arrayrecord(tmp_path / f"{i:03d}.arrayrecord", [encoded[i % N]])

    def n_open():
        return sum(str(tmp_path) in link for link in map(_target, os.listdir("/proc/self/fd")))

    records, most = list_source(kind, str(tmp_path))[0].records, 0
    for i in (*range(90), 3, 80):
        assert records[i].read() == encoded[i % N]
        most = max(most, n_open())
    assert 2 < most <= OPEN_FILES < 90


def _target(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def test_memory_for_row_groups_is_bounded():
    cache, made = ByteCache(2000), []

    def read(key):
        made.append(key)
        return pa.chunked_array([pa.array([bytes(key)])])

    for key in (900, 901, 900, 902, 900, 901, 5000, 5000, 900):
        assert len(cache.get(key, read)[0].as_py()) == key
    # 902 pushes out 901, which was not used since; 5,000 bytes push out all, and are held alone.
    assert made == [900, 901, 902, 901, 5000, 900]


def test_room_is_made_before_a_large_array_is_read():
    cache, held = ByteCache(2000), []

    def read(key):
        held.append([array.nbytes for array in cache._found.values()])
        return pa.chunked_array([pa.array(np.zeros(key, np.uint8))])

    for key in (900, 901, 1101, 199, 5000, 901, 1099):
        cache.get(key, read, lambda key: key)
    assert held == [[], [900], [], [1101], [], [], [901]]


@pytest.mark.parametrize("image", ["bytes", "struct"])
def test_a_row_group_beyond_the_bound_is_read_once_and_alone(tmp_path, monkeypatch, image):
    """Captions, which are read before each image, do not push it out."""
    bound, n = 2000, 4
    monkeypatch.setattr(record_files.IMAGES, "n_bytes", bound)
    monkeypatch.setattr(record_files.TEXTS, "n_bytes", bound)
    column = [bytes([i]) * bound for i in range(2 * n)]
    rows = column if image == "bytes" else [{"bytes": each, "path": ""} for each in column]
    table = pa.table({"image": rows, "caption": [f"{i}" * 200 for i in range(2 * n)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=n)
    records, reads = list_source("parquet", str(tmp_path))[0].records, []
    read = pq.ParquetFile.read_row_group

    def watched(self, group, columns):
        reads.append((group, *columns, len(record_files.IMAGES._found)))
        return read(self, group, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    for i in range(2 * n):
        assert records[i].read() == column[i]
    # Of images none is held while the next row group is read.
    assert [r for r in reads if r[1] == "image"] == [(0, "image", 0), (1, "image", 0)]
    assert [r[:2] for r in reads if r[1] == "caption"] == [(0, "caption"), (1, "caption")]


def test_a_file_written_anew_is_read_anew(tmp_path, encoded):
    path = table(tmp_path, image=encoded[:1])
    assert list_source("parquet", path)[0].records[0].read() == encoded[0]
    table(tmp_path, image=encoded[1:2])
    assert list_source("parquet", path)[0].records[0].read() == encoded[1]


def test_fields_beside_a_split():
    for fields in (Fields(), Fields("alt=&? text", "a#b:c", "all")):
        assert split_and_fields(fields.beside("train[:50%]")) == ("train[:50%]", fields)
    assert Fields().beside("train") == "train"
