"""The same sample by img2dataset, where it is installed (extra `laion`)."""

import importlib.util

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bsjax.core.errors import UserError
from bsjax.ingest import by_img2dataset
from bsjax.stages.ingest import Settings, ingest
from tests.ingest.server import KINDS, serve

SETTINGS = {"images": 12, "allow_private": True, "retries": 1, "max_megabytes": 1.0, "timeout": 2.0}
# What img2dataset does not look at, or tells as another fault.
UNSEEN = ("page", "huge", "bomb", "drip", "hang")


def write_table(path, web):
    kinds = [kind for kind in KINDS if kind not in UNSEEN]
    urls = [web.url(kind, n) for n, kind in enumerate(kinds)]
    pq.write_table(pa.table({"url": urls, "caption": [f"c {n}" for n in range(len(urls))]}), path)


def test_without_the_package_it_is_one_line(tmp_path, monkeypatch):
    pq.write_table(pa.table({"url": ["http://a/1"], "caption": ["x"]}), tmp_path / "t.parquet")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = Settings(str(tmp_path / "t.parquet"), downloader="img2dataset")
    with pytest.raises(UserError, match=r"--downloader=img2dataset.*bsjax\[laion\]"):
        ingest(tmp_path, settings)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("img2dataset"), reason="img2dataset is absent")
def test_it_keeps_the_same_images_for_the_same_reasons(tmp_path, monkeypatch):
    monkeypatch.setattr(by_img2dataset, "BLOCK", 9)
    with serve() as web:
        write_table(tmp_path / "t.parquet", web)
        for downloader in ("aiohttp", "img2dataset"):
            settings = Settings(str(tmp_path / "t.parquet"), downloader=downloader, **SETTINGS)
            ingest(tmp_path / downloader, settings)
    ours, theirs = (
        pq.read_table(tmp_path / name / "ingested" / "attrition.parquet").to_pylist()
        for name in ("aiohttp", "img2dataset")
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine | {"detail": ""} == other | {"detail": ""}
