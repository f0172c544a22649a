"""Every source damaged: truncated, with a wrong field, with mixed types. One line, or counted."""

import json
import pathlib

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from datasets.arrow_writer import ArrowWriter

from bsjax.core.errors import UserError
from bsjax.data.images import load_images
from bsjax.data.recognise import list_images
from bsjax.data.text import Fields
from tests.data import written
from tests.data.written import LAYOUTS, scene_items

N = 6


@pytest.fixture(scope="module")
def items():
    return scene_items(N)


def losses(path, fields=Fields()):  # noqa: B008
    """Number of good images, and the reasons of the bad ones, as a run would count them."""
    images, _ = list_images("auto", path, fields=fields)
    _, mask, bad = load_images(images.records, len(images.records), 16, 14)
    reasons = [image.reason for image in images.bad] + [reason for _, reason in bad]
    assert images.n_listed == int(mask.sum()) + len(reasons)
    return int(mask.sum()), reasons


def cut(path, share=0.6):
    data = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(data[: int(len(data) * share)])


TRUNCATED = {
    "webdataset": ("shard-00000.tar", "not a tar file, or truncated or damaged behind"),
    "datasets parquet": ("data/train-00000-of-00001.parquet", "not parquet, or truncated"),
    "datasets saved": ("saved/data-00000-of-00001.arrow", "cannot be opened"),
    "coco": ("annotations/captions_val2017.json", "is no JSON, or truncated"),
    "jsonl": ("all.jsonl", "line 4: is no JSON"),
    "json": ("all.json", "is no JSON, or truncated"),
    "parquet of names": ("all.parquet", "not parquet, or truncated"),
    "arrayrecord": ("x-00000-of-00001.array_record", "not ArrayRecord, or truncated"),
    "image folder": ("metadata.jsonl", "is no JSON"),
}


@pytest.mark.parametrize("layout", TRUNCATED)
def test_truncated(tmp_path, items, layout):
    path = LAYOUTS[layout](tmp_path, items)
    name, said = TRUNCATED[layout]
    cut(tmp_path / name)
    with pytest.raises(UserError, match=said) as caught:
        losses(path)
    assert "\n" not in str(caught.value)


def test_a_prepared_data_set_that_is_truncated(tmp_path, items):
    """Its own list of examples says how many there were."""
    path = written.tfds_prepared(tmp_path, items)
    cut(tmp_path / "mine" / "1.0.0" / "mine-train.array_record-00000-of-00001")
    good, reasons = losses(path)
    assert good == 0 and len(reasons) == N
    assert all("is damaged" in reason for reason in reasons)


def test_a_tar_cut_between_two_members(tmp_path, items):
    """Python's tarfile and webdataset take it for whole."""
    path = written.webdataset_tars(tmp_path, items, N)
    shard = tmp_path / "shard-00000.tar"
    import tarfile

    with tarfile.open(shard) as archive:
        end = archive.getmembers()[4].offset
    shard.write_bytes(shard.read_bytes()[:end])
    with pytest.raises(UserError, match=f"behind 2 samples .no end of the archive at byte {end}"):
        losses(path)


def test_a_compressed_tar(tmp_path, items):
    with webdataset.TarWriter(str(tmp_path / "a.tar.gz")) as writer:
        writer.write({"__key__": "a", "png": items[0][1]})
    (tmp_path / "a.tar.gz").rename(tmp_path / "a.tar")
    with pytest.raises(UserError, match="it is compressed by gzip: decompress it"):
        losses(str(tmp_path))


def test_truncated_images_and_tables(tmp_path, items):
    path = LAYOUTS["csv"](tmp_path, items)
    cut(tmp_path / "images" / f"{items[2][0]}.png")
    (tmp_path / "images" / f"{items[4][0]}.png").unlink()
    good, reasons = losses(path)
    assert good == N - 2 and "absent from" in reasons[0] and len(reasons) == 2
    text = (tmp_path / "results.csv").read_text()
    (tmp_path / "results.csv").write_text(text[:-3])
    with pytest.raises(UserError, match="double quote is opened and never closed"):
        losses(path)


WRONG = {
    "webdataset": "has no field 'nope' for captions, only 'png', 'txt'",
    "img2dataset tars": "has no field 'nope' for captions, only 'json', 'png', 'txt', 'caption'",
    "datasets saved": "has no field 'nope' for captions, only 'image', 'caption'",
    "datasets parquet": "has no field 'nope' for captions",
    "csv": "has no field 'nope' for captions, only 'image', 'caption'",
    "jsonl": "has no field 'nope' for captions, only 'image', 'captions'",
    "parquet of names": "has no field 'nope' for captions",
    "arrayrecord": "has no field 'nope' for captions",
    "tfds": "has no field 'nope' for captions",
    "image folder": "has no field 'nope' for captions",
}


@pytest.mark.parametrize("layout", WRONG)
def test_a_field_that_is_not_there(tmp_path, items, layout):
    path = LAYOUTS[layout](tmp_path, items)
    with pytest.raises(UserError, match=WRONG[layout]):
        list_images("auto", path, fields=Fields(caption="nope"))


@pytest.mark.parametrize("layout", ["webdataset", "datasets saved", "datasets parquet", "csv"])
def test_an_image_field_that_is_not_there(tmp_path, items, layout):
    path = LAYOUTS[layout](tmp_path, items)
    with pytest.raises(UserError, match="nope.*config.real.image_field"):
        losses(path, Fields(image="nope"))


def test_json_of_something_else(tmp_path, items):
    path = LAYOUTS["coco"](tmp_path, items)
    content = json.loads(pathlib.Path(path).read_text())
    boxes = [
        {"image_id": each["image_id"], "bbox": [0, 0, 1, 1]} for each in content["annotations"]
    ]
    for changed, said in (
        ({"a": 1}, "expected COCO's captions .images and annotations. or a list.*got 'a'"),
        (content | {"annotations": boxes}, "no image_id and caption, only 'image_id', 'bbox'"),
        (3, "got int"),
        ([1, 2], "entry 1: expected a JSON object"),
    ):
        pathlib.Path(path).write_text(json.dumps(changed))
        with pytest.raises(UserError, match=said):
            losses(path)


def test_mixed_types_in_tar_shards(tmp_path, items):
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for i, (key, image, told) in enumerate([*items, ("z", *items[0][1:])]):
            sample = {"__key__": key, "png": image, "txt": told[0], "json": {"caption": told[0]}}
            if i == 1:
                sample["json"] = {"caption": 3}
            if i == 2:
                sample["json"] = b"{"
            if i == 3:
                del sample["png"]
            if i == 4:
                sample["png"] = b"no image"
            if i == 5:
                sample["json"] = [1]
            if i == 6:
                sample["jpg"] = image
            writer.write(sample)
    good, reasons = losses(str(tmp_path))
    assert good == 1, reasons
    said = ["caption is a int", "json is none", "no image in this sample, only json, txt",
            "not an image", "json is no object", "2 images in this sample, png, jpg"]  # fmt: skip
    assert all(part in reason for part, reason in zip(said, reasons, strict=True))


def test_mixed_types_in_tables(tmp_path, items):
    written._beside(tmp_path, items)
    rows = [{"image": f"{key}.png", "caption": told[0]} for key, _, told in items]
    rows[1]["caption"] = {"a": 1}
    rows[2]["image"] = 7
    rows[3]["caption"] = ["x", 5]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    good, reasons = losses(str(tmp_path / "all.jsonl"))
    assert good == N - 3
    said = ["names no image", "line 2: its caption is a dict", "line 4: its caption is a int"]
    assert all(part in reason for part, reason in zip(said, reasons, strict=True))


def test_mixed_types_in_coco(tmp_path, items):
    path = LAYOUTS["coco"](tmp_path, items)
    content = json.loads(pathlib.Path(path).read_text())
    content["annotations"][0]["caption"] = 5
    content["images"][3] = "x"
    content["annotations"].append(7)
    content["annotations"].append({"image_id": [1], "caption": "y"})
    pathlib.Path(path).write_text(json.dumps(content))
    images, _ = list_images("auto", path)
    assert [image.reason.partition(": ")[2] or image.reason for image in images.bad] == [
        "names no image", "its caption is a int, expected text (got 5)",
    ]  # fmt: skip
    assert any("2 captions are of images that it does not list" in note for note in images.notes)
    assert any("2 annotations have no image_id" in note for note in images.notes)


def test_mixed_types_in_data_sets(tmp_path, items):
    images = [{"bytes": image, "path": None} for _, image, _ in items]
    images[1], images[2] = None, {"bytes": b"no image", "path": None}
    images[3] = {"bytes": None, "path": str(tmp_path / "gone.png")}
    told = [captions for *_, captions in items]
    told[4] = None
    texts = datasets.Sequence(datasets.Value("string"))
    features = datasets.Features({"image": datasets.Image(), "caption": texts})
    with ArrowWriter(features=features, path=str(tmp_path / "x.arrow")) as writer:
        for image, caption in zip(images, told, strict=True):
            writer.write({"image": image, "caption": caption})
        writer.finalize()
    good, reasons = losses(str(tmp_path / "x.arrow"))
    assert good == N - 3
    said = ["no image bytes in this row", "not an image", "gone.png"]
    assert all(part in reason for part, reason in zip(said, reasons, strict=True))
    numbers = datasets.Dataset.from_dict({"image": images[:1], "caption": [5]})
    numbers.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "numbers"))
    assert "caption is a int" in losses(str(tmp_path / "numbers"))[1][0]


def test_mixed_types_in_parquet(tmp_path, items):
    table = pa.table({"image": [items[0][1], None, b"x"], "caption": ["a", "b", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    good, reasons = losses(str(tmp_path))
    assert good == 1 and reasons == ["no image bytes in this row", "not an image"]


def test_addresses_in_place_of_files(tmp_path):
    pq.write_table(pa.table({"url": ["u"], "image": ["https://x/1.jpg"], "text": ["a"]}),
                   tmp_path / "laion.parquet")  # fmt: skip
    with pytest.raises(UserError, match="names addresses .https://x/1.jpg., expected files"):
        losses(str(tmp_path / "laion.parquet"))


@pytest.mark.parametrize("number", [[1], {"a": 1}, None, 1.5])
def test_numbers_of_coco_that_are_none(tmp_path, items, number):
    (tmp_path / "a.png").write_bytes(items[0][1])
    told = {"images": [{"id": number, "file_name": "a.png"}],
            "annotations": [{"image_id": 1, "caption": "x"}]}  # fmt: skip
    (tmp_path / "captions.json").write_text(json.dumps(told))
    images, _ = list_images("auto", str(tmp_path / "captions.json"))
    assert images.n_without_caption == 1 and "1 captions are of images" in images.notes[0]
