"""Images out of ArrayRecord, parquet and tfds are those that were written, in any process."""

import io
import json
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
from bsjax.data.images import iterate_batches
from bsjax.data.sources import list_source

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


def test_tfds(tmp_path, encoded):
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
    write_arrayrecord(folder / name, map(serializer.serialize_example, examples))
    split = {"name": "train", "shardLengths": [str(N)], "numBytes": "1000",
             "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}  # fmt: skip
    info = {"name": "mine", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))

    images, _ = list_source("tfds", str(folder), "train")
    assert len(images.records) == N
    for i in range(N):
        assert images.records[i].read() == encoded[i]
        assert images.records[i].caption == f"c{i}"
    again = pickle.loads(pickle.dumps(images.records))
    assert again[2].read() == encoded[2]


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
