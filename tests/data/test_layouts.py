"""Every layout as its own library writes it: recognised, read in any order, no caption lost."""

import io
import json
import pathlib
import pickle
import tarfile

import pytest

from bsjax.core.addresses import find, within
from bsjax.core.errors import UserError
from bsjax.data.images import iterate_batches
from bsjax.data.recognise import list_images, recognise
from bsjax.data.sources import read_image
from bsjax.data.text import Fields
from tests.data import written
from tests.data.written import CAPTION_FIELDS, LAYOUTS, SEVERAL

N = 7


@pytest.fixture(scope="module")
def items():
    return written.scene_items(N)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_captions_are_those_written(tmp_path, items, layout):
    path = LAYOUTS[layout](tmp_path, items)
    fields = Fields(caption=CAPTION_FIELDS.get(layout, ""))
    images, _ = list_images("auto", path, fields=fields)
    assert len(images.records) == images.n_listed == N and not images.bad
    assert images.n_without_caption == 0
    order = (6, 0, 3, 5, 1, 4, 2)
    assert [images.records[i].read() for i in order] == [items[i][1] for i in order]
    assert [record.caption for record in images.records] == [told[0] for _, _, told in items]
    assert len({record.key for record in images.records}) == N
    again = pickle.loads(pickle.dumps(images.records))
    assert again[2].read() == items[2][1]
    for record, (_, image, _) in zip(images.records, items, strict=True):
        assert read_image(find(within(record.path, tmp_path), tmp_path)) == image
    limited, _ = list_images("auto", path, limit=4, fields=fields)
    assert [record.key for record in limited.records] == [r.key for r in images.records][:4]


@pytest.mark.parametrize("layout", SEVERAL)
def test_all_captions_of_an_image_are_one_cluster(tmp_path, items, layout):
    path = LAYOUTS[layout](tmp_path, items)
    images, _ = list_images("auto", path, limit=3, fields=Fields(captions="all"))
    expected = [caption for _, _, told in items[:3] for caption in told]
    assert sorted(record.caption for record in images.records) == sorted(expected)
    clusters = [record.cluster for record in images.records]
    assert [clusters.count(cluster) for cluster in dict.fromkeys(clusters)] == [2, 2, 2]
    for record in images.records:
        assert record.key.startswith(f"{record.cluster}#")
        assert any(record.caption in told and record.read() == image for _, image, told in items)


@pytest.mark.parametrize("layout", ["webdataset", "datasets saved", "coco"])
def test_worker_processes_read_them(tmp_path, items, layout):
    images, _ = list_images("auto", LAYOUTS[layout](tmp_path, items))
    batches = iterate_batches(images.records, resize=16, crop=14, batch_size=4, workers=1)
    assert sum(int(batch.mask.sum()) for batch in batches) == N


def test_a_resumed_pass_begins_where_it_stopped(tmp_path, items):
    images, _ = list_images("auto", LAYOUTS["webdataset"](tmp_path, items))
    options = dict(resize=16, crop=14, batch_size=2)
    whole = [batch.rows.tolist() for batch in iterate_batches(images.records, **options)]
    rest = [batch.rows.tolist() for batch in iterate_batches(images.records, start=4, **options)]
    assert rest == whole[2:]


def test_a_limit_opens_no_more_shards_than_it_takes(tmp_path, items, monkeypatch):
    from bsjax.data import tar_shards

    path, opened = LAYOUTS["webdataset"](tmp_path, items), []
    index = tar_shards.index_shard
    monkeypatch.setattr(tar_shards, "index_shard", lambda p: opened.append(p) or index(p))
    images, _ = list_images("webdataset", path, limit=4)
    assert len(images.records) == 4 and len(opened) == 2


def test_shards_by_ranges_in_braces(tmp_path, items):
    LAYOUTS["webdataset"](tmp_path, items)
    images, _ = list_images("auto", str(tmp_path / "shard-{00001..00002}.tar"))
    assert [record.key for record in images.records] == [key for key, *_ in items[3:]]


def test_samples_of_one_name_in_two_shards_have_the_names_of_their_shards(tmp_path, items):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written.webdataset_tars(tmp_path / folder, items[:1])
        (tmp_path / folder / "shard-00000.tar").rename(tmp_path / f"{folder}.tar")
    images, _ = list_images("auto", str(tmp_path / "*.tar"))
    assert [record.key for record in images.records] == ["a/000000000", "b/000000000"]


def test_two_shards_of_one_name_have_the_names_of_their_folders(tmp_path, items):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written.webdataset_tars(tmp_path / folder, items[:1])
    images, _ = list_images("auto", str(tmp_path / "*" / "*.tar"))
    names = [record.key for record in images.records]
    assert names == ["a/shard-00000/000000000", "b/shard-00000/000000000"]


def test_captions_of_samples_in_other_parts(tmp_path, items):
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for key, image, told in items:
            writer.write({"__key__": f"deep/{key}", "seg.png": b"mask", "input.png": image,
                          "json": {"alt": told[1]}, "prompt.txt": told[0]})  # fmt: skip
    path = str(tmp_path)
    with pytest.raises(UserError, match="image_field"):
        list_images("auto", path)
    for chosen, place in (("alt", 1), ("prompt.txt", 0)):
        fields = Fields(chosen, "input.png")
        images, _ = list_images("auto", path, fields=fields)
        assert [record.caption for record in images.records] == [told[place] for *_, told in items]
        assert [record.read() for record in images.records] == [image for _, image, _ in items]
        assert read_image(images.records[3].path) == items[3][1]
    with pytest.raises(UserError, match="no field 'title'.*'alt'"):
        list_images("auto", path, fields=Fields("title", "input.png"))


def test_streams_stay_on_disk_and_go_on(tmp_path, items, monkeypatch):
    from bsjax.data import hf_datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hf_datasets, "PART_ROWS", 2)
    (tmp_path / "set").mkdir()
    path = LAYOUTS["datasets parquet"](tmp_path / "set", items)
    write, calls = hf_datasets._write, []

    def killed(place, state):
        write(place, state)
        calls.append(state["rows"])
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(hf_datasets, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        list_images("hf_stream", path, limit=5)
    images, _ = list_images("hf_stream", path, limit=5, fields=Fields())
    assert calls == [2, 4, 5, 5]
    assert [record.read() for record in images.records] == [image for _, image, _ in items[:5]]
    assert [record.caption for record in images.records] == [told[0] for *_, told in items[:5]]
    assert read_image(images.records[4].path) == items[4][1]
    list_images("hf_stream", path, limit=5)
    assert len(calls) == 4  # nothing is read again
    with pytest.raises(UserError, match="set --config.real.limit"):
        list_images("hf_stream", path)


def test_image_columns_of_other_names_and_files_that_a_data_set_names(tmp_path, items):
    import datasets

    paths = []
    for key, image, _ in items:
        paths.append(str(tmp_path / f"{key}.png"))
        (tmp_path / f"{key}.png").write_bytes(image)
    told = [captions[0] for *_, captions in items]
    found = datasets.Dataset.from_dict({"picture": paths, "alt": told})
    found.cast_column("picture", datasets.Image()).save_to_disk(str(tmp_path / "saved"))
    images, _ = list_images("auto", str(tmp_path / "saved"), fields=Fields(caption="alt"))
    assert [record.read() for record in images.records] == [image for _, image, _ in items]
    assert images.records[1].caption == told[1]
    with pytest.raises(UserError, match="expected a column x, got 'picture', 'alt'"):
        list_images("hf", str(tmp_path / "saved"), fields=Fields(image="x"))


def test_tfds_by_name(tmp_path, items, monkeypatch):
    written.tfds_prepared(tmp_path, items)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert recognise("mine") == ("tfds", "mine")


def test_splits_of_a_saved_data_set(tmp_path, items):
    path = LAYOUTS["datasets saved splits"](tmp_path, items)
    assert len(list_images("auto", path, "test")[0].records) == 2
    with pytest.raises(UserError, match="its splits are train, test.*config.real.split"):
        list_images("auto", path, "val")


def test_a_table_finds_its_images_where_it_is_told(tmp_path, items):
    (tmp_path / "far").mkdir()
    LAYOUTS["csv"](tmp_path / "far", items)
    (tmp_path / "far" / "results.csv").rename(tmp_path / "results.csv")
    path = str(tmp_path / "results.csv")
    with pytest.raises(UserError, match="none of the images that it names.*config.real.image_root"):
        list_images("auto", path)
    fields = Fields(root=str(tmp_path / "far" / "images"))
    assert len(list_images("auto", path, fields=fields)[0].records) == N


def test_a_table_of_absolute_names(tmp_path, items):
    LAYOUTS["csv"](tmp_path, items)
    rows = [f'{tmp_path}/images/{key}.png,"{told[0]}"' for key, _, told in items]
    (tmp_path / "all.csv").write_text("\n".join(["path,caption", *rows]))
    images, _ = list_images("table", str(tmp_path / "all.csv"))
    assert [record.read() for record in images.records] == [image for _, image, _ in items]
    (tmp_path / "sub").mkdir()
    (tmp_path / "all.csv").rename(tmp_path / "sub" / "all.csv")
    alone = dict(fields=Fields(root=str(tmp_path / "sub")), follow_links=False)
    with pytest.raises(UserError, match="lies outside of"):
        list_images("table", str(tmp_path / "sub" / "all.csv"), **alone)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.zip": "x"}, "holds a.zip, which is no source of images that is read: a folder"),
        ({"a.csv": "x", "b.csv": "y"}, "holds a.csv, b.csv, which is no source"),
        ({}, "holds no image"),
    ],
)
def test_what_is_not_recognised_is_told_with_what_is_read(tmp_path, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        list_images("auto", str(tmp_path))


@pytest.mark.parametrize("layout", ["webdataset", "arrayrecord", "datasets parquet"])
@pytest.mark.parametrize("image", ["logo.png", "assets/deep/logo.png"])
def test_a_folder_of_two_kinds_is_asked_about(tmp_path, items, layout, image):
    LAYOUTS[layout](tmp_path, items)
    found, _ = list_images("auto", str(tmp_path))
    (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / image).write_bytes(items[0][1])
    with pytest.raises(UserError, match=rf"images \({image}\) and .*source=folder or ") as told:
        list_images("auto", str(tmp_path))
    name, _, value = str(told.value).rpartition("--config.real.")[2].partition("=")
    again, _ = list_images(**{"source": "auto", "path": str(tmp_path), name: value})
    assert [r.caption for r in again.records] == [r.caption for r in found.records]


def test_a_path_that_is_nothing(tmp_path):
    with pytest.raises(UserError, match="no folder, no file and no pattern.*source to hf or tfds"):
        recognise(str(tmp_path / "none"))
    (tmp_path / "a.bin").write_text("x")
    with pytest.raises(UserError, match="holds a.bin, which is no source"):
        recognise(str(tmp_path / "a.bin"))


def test_coco_tells_of_captions_without_an_image(tmp_path, items):
    path = LAYOUTS["coco"](tmp_path, items)
    content = json.loads(pathlib.Path(path).read_text())
    content["images"] = content["images"][1:]
    content["annotations"].append({"id": 99})
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    images, _ = list_images("auto", path)
    assert images.notes == (
        "captions_val2017.json: 2 captions are of images that it does not list",
        "captions_val2017.json: 1 annotations have no image_id and caption",
    )
    assert len(images.records) == N - 1


def tar(path, *members):
    """Members: (name, bytes), or (name, member that it links to, kind of link)."""
    with tarfile.open(path, "w") as archive:
        for name, *told in members:
            info = tarfile.TarInfo(name)
            if len(told) == 2:
                info.linkname, info.type = told
                archive.addfile(info)
            else:
                info.size = len(told[0])
                archive.addfile(info, io.BytesIO(told[0]))


def test_a_file_that_tar_stored_once_is_there_under_each_name(tmp_path, items):
    """As `tar` writes files with several hard links, and links."""
    image = items[0][1]
    tar(
        tmp_path / "0.tar",
        ("x/a.png", image), ("x/a.txt", b"A"),
        ("x/b.png", "x/a.png", tarfile.LNKTYPE), ("x/b.txt", b"B"),
        ("y/c.png", "../x/a.png", tarfile.SYMTYPE),
        ("y/d.png", "/etc/hostname", tarfile.SYMTYPE), ("y/d.txt", b"D"),
        ("y/e.png", "../../x/a.png", tarfile.SYMTYPE),
    )  # fmt: skip
    images, _ = list_images("auto", str(tmp_path))
    assert [record.key for record in images.records] == ["x/a", "x/b", "y/c", "y/d", "y/e"]
    assert [record.caption for record in images.records] == ["A", "B", "", "D", ""]
    assert all(images.records[place].read() == image for place in range(3))
    for place in (3, 4):
        with pytest.raises(ValueError, match="no image in this sample"):
            images.records[place].read()


def test_what_lies_beside_shards_and_is_not_read_is_told(tmp_path, items):
    tar(tmp_path / "0.tar", ("a.png", items[0][1]), ("a.txt", b"A"))
    tar(tmp_path / "1.TAR", ("b.png", items[0][1]), ("b.txt", b"B"))
    (tmp_path / "2.tar.gz").touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "0_stats.json").write_text("{}")
    images, _ = list_images("auto", str(tmp_path))
    assert [record.caption for record in images.records] == ["A", "B"]
    assert images.not_understood == ("2.tar.gz", "more/")


def test_a_table_that_names_images_in_images_has_the_keys_of_the_folder(tmp_path, items):
    """So that images made elsewhere, in images/ or not, have their names."""
    written.tsv_table(tmp_path, items)
    images, _ = list_images("auto", str(tmp_path / "all.tsv"))
    folder, _ = list_images("folder", str(tmp_path))
    assert [r.key for r in images.records] == [r.key for r in folder.records]
    assert images.records[0].key == items[0][0]
