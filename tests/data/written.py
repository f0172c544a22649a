"""Small captioned sets as the libraries that own the layouts write them, one function a layout."""

import io
import json

import datasets
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
import webdataset
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from bsjax.data import scenes


def scene_items(n, seed=1):
    """(name, encoded image, captions) of the first scenes; the last caption says the same anew."""
    found = []
    for i in range(n):
        scene = scenes.scene(seed, i)
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(scene.image)).save(buffer, format="PNG")
        captions = [scene.caption, f"a picture of {scene.caption}"]
        found.append((f"{i:09d}", buffer.getvalue(), captions))
    return found


def webdataset_tars(folder, items, per_shard=3):
    """As webdataset's own writer has it."""
    with webdataset.ShardWriter(str(folder / "shard-%05d.tar"), maxcount=per_shard, verbose=0) as w:
        for key, image, captions in items:
            w.write({"__key__": key, "png": image, "txt": captions[0]})
    return str(folder)


def img2dataset_tars(folder, items, per_shard=3, lost=1):
    """As img2dataset 1.47 (writer.py, logger.py) has it: the last `lost` rows of a shard failed."""
    for shard, start in enumerate(range(0, len(items), per_shard)):
        part = items[start : start + per_shard]
        rows = []
        with webdataset.TarWriter(str(folder / f"{shard:05d}.tar")) as writer:
            for key, image, captions in part:
                meta = {"caption": captions[0], "url": f"http://x/{key}", "key": key,
                        "status": "success", "error_message": None, "width": 64, "height": 64,
                        "original_width": 64, "original_height": 64, "exif": "{}", "sha256": "0",
                        }  # fmt: skip
                rows.append(meta)
                writer.write({"__key__": key, "png": image, "txt": captions[0],
                              "json": json.dumps(meta, indent=4)})  # fmt: skip
        gone = {"status": "failed_to_download", "error_message": "HTTP Error 404: Not Found",
                "width": None, "height": None, "original_width": None, "original_height": None,
                "exif": None, "sha256": None}  # fmt: skip
        rows += [rows[0] | gone | {"key": f"9{shard}{i}"} for i in range(lost)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet")
        stats = {"count": len(rows), "successes": len(part), "failed_to_download": lost,
                 "failed_to_resize": 0, "duration": 1.0, "start_time": 0.0, "end_time": 1.0,
                 "status_dict": {"success": len(part), "HTTP Error 404": lost}}  # fmt: skip
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps(stats, indent=4))
    return str(folder)


def img2dataset_files(folder, items, per_shard=3):
    """The same with --output_format files."""
    for shard, start in enumerate(range(0, len(items), per_shard)):
        (folder / f"{shard:05d}").mkdir()
        for key, image, captions in items[start : start + per_shard]:
            place = folder / f"{shard:05d}" / key
            place.with_suffix(".png").write_bytes(image)
            place.with_suffix(".txt").write_text(captions[0])
            place.with_suffix(".json").write_text(json.dumps({"caption": captions[0], "key": key}))
        pq.write_table(pa.table({"key": ["x"]}), folder / f"{shard:05d}.parquet")
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps({"count": per_shard}))
    return str(folder)


def hf_dataset(items, several=True):
    """In memory, with lists of captions."""
    images = [{"bytes": image, "path": None} for _, image, _ in items]
    captions = [told if several else told[0] for _, _, told in items]
    return datasets.Dataset.from_dict({"image": images, "caption": captions}).cast_column(
        "image", datasets.Image()
    )


def hf_saved(folder, items):
    hf_dataset(items).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


def hf_saved_splits(folder, items):
    splits = {"train": hf_dataset(items), "test": hf_dataset(items[:2])}
    datasets.DatasetDict(splits).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


def hf_parquet(folder, items):
    """As a repository of the hub has it."""
    (folder / "data").mkdir()
    hf_dataset(items).to_parquet(str(folder / "data" / "train-00000-of-00001.parquet"))
    return str(folder)


def hf_image_folder(folder, items):
    """Images with metadata.jsonl, a list of captions each."""
    lines = []
    for key, image, captions in items:
        (folder / f"{key}.png").write_bytes(image)
        lines.append(json.dumps({"file_name": f"{key}.png", "text": captions}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return str(folder)


def coco(folder, items):
    """annotations/captions_val2017.json beside val2017/, annotations in any order."""
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    images, annotations = [], []
    for i, (key, image, captions) in enumerate(items):
        name = f"{int(key):012d}.png"
        (folder / "val2017" / name).write_bytes(image)
        images.append({"id": 100 + i, "file_name": name, "height": 64, "width": 64, "license": 1})
        annotations += [{"image_id": 100 + i, "id": 7 * i + j, "caption": caption}
                        for j, caption in enumerate(captions)]  # fmt: skip
    annotations.sort(key=lambda each: each["id"] % 7)
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    path = folder / "annotations" / "captions_val2017.json"
    path.write_text(json.dumps(content))
    return str(path)


def _beside(folder, items):
    (folder / "images").mkdir()
    for key, image, _ in items:
        (folder / "images" / f"{key}.png").write_bytes(image)


def csv_table(folder, items):
    """A row a caption, as Flickr30k has it."""
    _beside(folder, items)
    rows = [f'{key}.png,"{caption}"' for key, _, captions in items for caption in captions]
    (folder / "results.csv").write_text("\n".join(["image,caption", *rows]))
    return str(folder / "results.csv")


def tsv_table(folder, items):
    _beside(folder, items)
    rows = [f"images/{key}.png\t{captions[0]}" for key, _, captions in items]
    (folder / "all.tsv").write_text("\n".join(["filepath\ttitle", *rows]))
    return str(folder / "all.tsv")


def jsonl_table(folder, items):
    _beside(folder, items)
    rows = [{"image": f"{key}.png", "captions": captions} for key, _, captions in items]
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder / "all.jsonl")


def json_table(folder, items):
    _beside(folder, items)
    rows = [{"image": f"{key}.png", "caption": captions[0]} for key, _, captions in items]
    (folder / "all.json").write_text(json.dumps(rows))
    return str(folder / "all.json")


def parquet_table(folder, items):
    _beside(folder, items)
    rows = [{"image_path": f"{key}.png", "text": captions} for key, _, captions in items]
    pq.write_table(pa.Table.from_pylist(rows), folder / "all.parquet")
    return str(folder / "all.parquet")


def array_records(folder, items):
    writer = array_record_module.ArrayRecordWriter(
        str(folder / "x-00000-of-00001.array_record"), "group_size:1"
    )
    for _, image, captions in items:
        writer.write(msgpack.packb({"image": image, "caption": captions}))
    writer.close()
    return str(folder)


def tfds_prepared(folder, items, name="mine"):
    """As tfds lays it out; writing it through tfds itself takes TensorFlow."""
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(None, None, 3)), "caption": tfds.features.Text()}
    )
    place = folder / name / "1.0.0"
    place.mkdir(parents=True)
    features.save_config(str(place))
    serializer = ExampleSerializer(features.get_serialized_info())
    file = place / f"{name}-train.array_record-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for _, image, captions in items:
        example = {"image": image, "caption": captions[0].encode()}
        writer.write(serializer.serialize_example(example))
    writer.close()
    split = {"name": "train", "shardLengths": [str(len(items))], "numBytes": "1000",
             "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}  # fmt: skip
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (place / "dataset_info.json").write_text(json.dumps(info))
    return str(place)


def sidecars(folder, items):
    for key, image, captions in items:
        (folder / f"{key}.png").write_bytes(image)
        (folder / f"{key}.txt").write_text(captions[0])
    return str(folder)


LAYOUTS = {
    "webdataset": webdataset_tars,
    "img2dataset tars": img2dataset_tars,
    "img2dataset files": img2dataset_files,
    "datasets saved": hf_saved,
    "datasets saved splits": hf_saved_splits,
    "datasets parquet": hf_parquet,
    "image folder": hf_image_folder,
    "coco": coco,
    "csv": csv_table,
    "tsv": tsv_table,
    "jsonl": jsonl_table,
    "json": json_table,
    "parquet of names": parquet_table,
    "arrayrecord": array_records,
    "tfds": tfds_prepared,
    "sidecars": sidecars,
}
# Layouts whose images have both captions of an item.
SEVERAL = (
    "datasets saved", "datasets saved splits", "datasets parquet", "image folder", "coco", "csv",
    "jsonl", "parquet of names", "arrayrecord",
)  # fmt: skip
CAPTION_FIELDS = {"tsv": "title"}
