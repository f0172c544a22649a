"""What is said of a mistake in one arm's images names that arm's flags, and a way out."""

import ast
import pathlib

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python import array_record_module

import bsjax.data
from bsjax.core.errors import UserError
from bsjax.data.captions import list_folder
from bsjax.data.images import load_images
from bsjax.data.sources import list_source, read_image
from bsjax.data.text import Fields

WAYS_OUT = ("set --config.generated.", "mend", "add ", "copy ", "rename", "use ", "write it again",
            "save ", "close ", "put ")  # fmt: skip


def folder_of(files, **options):
    def make(path):
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return lambda: list_folder(str(path), section="generated", **options)

    return make


def table_of(columns, **options):
    def make(path):
        pq.write_table(pa.table(columns), path / "train-00000-of-00001.parquet")
        return lambda: list_source("parquet", str(path), section="generated", **options)

    return make


def source_of(kind, name, content=None):
    def make(path):
        if content is not None:
            (path / name).write_bytes(content)
        return lambda: list_source(kind, str(path / name), section="generated")

    return make


def split_and_other(path):
    source = table_of({"image": [b"x"]})(path)
    pq.write_table(pa.table({"image": [b"x"]}), path / "other.parquet")
    return source


def link_out_of_the_folder(path):
    (path / "a.jpg").touch()
    (path.parent / "away.csv").write_text("image,caption\n")
    (path / "captions.csv").symlink_to(path.parent / "away.csv")
    return lambda: list_folder(str(path), section="generated")


def captions(text):
    return folder_of({"a.png": b"", "captions.csv": text})


MISTAKES = {
    "no folder": lambda path: lambda: list_folder(str(path / "x"), section="generated"),
    "no image": folder_of({"notes.md": "x"}),
    "no image name": captions("caption,other\nx,y\n"),
    "no caption": captions("image,other\nx,y\n"),
    "no rows": captions("image,caption\n"),
    "all absent": captions("image,caption\nb.png,x\n"),
    "outside": captions("image,caption\n../b.png,x\n"),
    "twice": captions("image,caption\na.png,x\na.png,y\n"),
    "two columns of a name": captions("image,caption,image\na.png,x,y\n"),
    "cells": captions("image,caption\na.png,x,y\n"),
    "quote": captions('image,caption\na.png,"x\n'),
    "no UTF-8": captions(b"image,caption\na.png,\xff\n"),
    "two extensions": folder_of({"a.png": b"", "a.jpg": b"", "captions.csv": "image,caption\na,x"}),
    "two of a key": folder_of({"a.png": b"", "a.jpg": b""}),
    "no JSON": folder_of({"a.png": b"", "metadata.jsonl": "{"}),
    "no object": folder_of({"a.png": b"", "metadata.jsonl": "[1]"}),
    "no parquet": folder_of({"a.png": b"", "metadata.parquet": b"x"}),
    "no such caption": folder_of(
        {"a.png": b"", "metadata.csv": "file_name,x\na.png,y\n"}, fields=Fields("alt")
    ),
    "link": link_out_of_the_folder,
    "parquet: no file": source_of("parquet", "none*"),
    "parquet: damaged": source_of("parquet", "a.parquet", b"x"),
    "parquet: no image": table_of({"x": [b"x"]}),
    "parquet: no caption": table_of({"image": [b"x"]}, fields=Fields("alt")),
    "parquet: no record": table_of({"image": pa.array([], pa.binary())}),
    "parquet: no split": table_of({"image": [b"x"]}, split="val"),
    "parquet: of no split": split_and_other,
    "arrayrecord: no file": source_of("arrayrecord", "none*"),
    "arrayrecord: damaged": source_of("arrayrecord", "a.arrayrecord", b"x"),
    "tfds": source_of("tfds", "none"),
    "scenes": source_of("scenes", "x"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_flags_of_the_generated_arm(tmp_path, name):
    (tmp_path / "set").mkdir()
    make = MISTAKES[name](tmp_path / "set")
    with pytest.raises(UserError) as caught:
        make()
    line = str(caught.value)
    assert "config.real" not in line and "{real" not in line, line
    assert any(way in line for way in WAYS_OUT), line
    assert "\n" not in line


def test_flags_in_the_reasons_of_bad_images(tmp_path):
    path = tmp_path / "a.arrayrecord"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    writer.write(msgpack.packb({"picture": b"x", "caption": "a"}))
    writer.close()
    for captions_of_each in ("first", "all"):
        fields = Fields(captions=captions_of_each)
        records = list_source("arrayrecord", str(path), fields=fields, section="generated")[
            0
        ].records
        _, _, bad = load_images(records, 1, 28, 28)
        assert "set --config.generated.image_field" in bad[0][1]
    with pytest.raises(ValueError, match="set --config.{real,generated}.image_field"):
        read_image(records[0].path)  # of which nobody knows the arm


def test_no_text_of_data_names_one_arm():
    """A message that is not tried above: the section stands in it, not an arm."""
    for path in pathlib.Path(bsjax.data.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert "config.real" not in node.value, f"{path.name}, line {node.lineno}"
