"""`bsjax run` from every source to a report; samples of a caption are one cluster; unpaired."""

import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from etils import epath

from bsjax import presets
from bsjax.analysis.units import find_units
from bsjax.core.errors import UserError
from bsjax.experiment import inputs, pairs
from bsjax.stages import report
from bsjax.stages.compare import compare
from bsjax.stages.measure import measure
from bsjax.stages.run import run
from tests.data import written
from tests.data.written import CAPTION_FIELDS, LAYOUTS

N = 12
QUICK = ("webdataset", "coco")


@pytest.fixture
def config(monkeypatch):
    # The map of the concepts takes longer than all else, and has no part in this.
    monkeypatch.setattr(report, "place_concepts", lambda folder, atoms, digest: atoms[:, :2])
    config = presets.experiment()
    presets.on_scenes(config, N)
    config.generator = presets.no_generator()
    config.real.source, config.real.limit = "auto", -1
    config.encoder.batch_per_device = 2
    return config


@pytest.fixture(scope="module")
def items():
    return written.scene_items(N)


def draw(folder, names, seed=3):
    """Other scenes under the names of the real ones."""
    for name, (_, image, _) in zip(names, written.scene_items(len(names), seed), strict=True):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    return str(folder)


def manifest_of(workdir, name="comparisons/generated"):
    return json.loads((workdir / name / "manifest.json").read_text())


@pytest.mark.parametrize(
    "layout",
    [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in LAYOUTS],
)
def test_from_a_source_to_a_report(tmp_path, config, items, layout):
    (tmp_path / "real").mkdir()
    config.real.path = LAYOUTS[layout](tmp_path / "real", items)
    config.real.caption_field = CAPTION_FIELDS.get(layout, "")
    keys = [record.key for record in inputs.load_set(config, "real").images.records]
    config.generated.path = draw(tmp_path / "generated", keys)
    run(config, epath.Path(tmp_path / "w"))
    counts = manifest_of(tmp_path / "w", "measures/real")["counts"]
    assert (counts["images"], counts["bad"], counts["without_caption"]) == (N, 0, 0)
    assert manifest_of(tmp_path / "w")["counts"]["pairs"] == N
    images = pq.read_table(tmp_path / "w" / "measures" / "real" / "images.parquet")
    assert images["caption"].to_pylist() == [told[0] for *_, told in items]
    page = (tmp_path / "w" / "report" / "index.html").read_text()
    assert "UNPAIRED" not in page and "pairing" not in manifest_of(tmp_path / "w")


def test_samples_of_a_caption_are_one_cluster(tmp_path, config, items):
    (tmp_path / "real").mkdir()
    config.real.path = written.csv_table(tmp_path / "real", items)
    names = [f"{key}_{i}" for key, *_ in items for i in range(3)]
    config.generated.path = draw(tmp_path / "generated", names)
    workdir = epath.Path(tmp_path / "w")
    run(config, workdir)
    manifest = manifest_of(tmp_path / "w")
    counts = manifest["counts"]
    assert (counts["pairs"], counts["clusters"]) == (3 * N, N)
    assert manifest["pairing"] == {"by": "samples", "real_images": N}
    assert manifest["control"]["is_sound"]
    table = pq.read_table(tmp_path / "w" / "comparisons" / "generated" / "duplicates.parquet")
    for row in table.to_pylist():  # no real image is a duplicate of itself
        assert row["key"].partition("#")[0] != row["other"].partition("#")[0]
    first = pq.read_table(tmp_path / "w" / "comparisons" / "generated" / "concepts.parquet")
    # Whatever captions and images say, and made again from the statistics alone.
    config.compare.clusters, config.overwrite = "image", True
    compare(config, workdir, from_statistics=True)
    assert manifest_of(tmp_path / "w")["counts"]["clusters"] <= N
    config.compare.clusters = "auto"
    compare(config, workdir, from_statistics=True)
    again = pq.read_table(tmp_path / "w" / "comparisons" / "generated" / "concepts.parquet")
    assert str(again.to_pydict()) == str(first.to_pydict())  # NaN is like no NaN


def test_captions_of_a_real_image_are_one_cluster(tmp_path, config, items):
    (tmp_path / "real").mkdir()
    config.real.path, config.real.captions = written.coco(tmp_path / "real", items), "all"
    keys = [record.key for record in inputs.load_set(config, "real").images.records]
    config.generated.path = draw(tmp_path / "generated", keys)
    measure(config, epath.Path(tmp_path / "w"))
    compare(config, epath.Path(tmp_path / "w"))
    assert manifest_of(tmp_path / "w")["counts"]["clusters"] <= N
    images = pq.read_table(tmp_path / "w" / "measures" / "real" / "images.parquet")
    assert len(set(images["cluster"].to_pylist())) == N


@pytest.mark.parametrize("mode", ["auto", "caption", "image"])
def test_what_is_known_to_repeat_is_one_cluster_whatever_it_shows(mode):
    plain = sp.csr_array((4, 3))  # shows nothing by which an image is known again
    links = np.array([[0, 1], [2, 3]])
    units = find_units(mode, plain, ["a", "b", "c", "d"], links=links)
    assert units.labels.tolist() == units.repeats.tolist() == [0, 0, 1, 1]
    assert find_units("none", plain, ["a", "b", "c", "d"], links=links).labels.tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_sets_of_different_captions_are_compared_unpaired(tmp_path, config, items, caplog):
    (tmp_path / "real").mkdir()
    config.real.path = written.webdataset_tars(tmp_path / "real", items)
    config.generated.path = draw(
        tmp_path / "generated", [f"p{i:03d}_{j}" for i in range(9) for j in (0, 1)]
    )
    prompts = "\n".join(["Prompt\tCategory", *(f"a prompt {i}\tx" for i in range(9))])
    (tmp_path / "parti.tsv").write_text(prompts)
    config.generated.prompts = str(tmp_path / "parti.tsv")
    workdir = epath.Path(tmp_path / "w")
    with pytest.raises(UserError, match="no image name in common.*config.compare.pairs=none"):
        run(config, workdir)
    config.compare.pairs = "none"
    with caplog.at_level(logging.WARNING):
        run(config, workdir)
    assert "UNPAIRED" in caplog.text
    manifest = manifest_of(tmp_path / "w")
    assert manifest["pairing"]["by"] == "lot"
    assert (manifest["counts"]["clusters"], manifest["counts"]["pairs"]) == (9, 18)
    assert manifest["notes"][0].startswith("UNPAIRED: real and generated images are of different")
    assert manifest["config"]["compare.pairs"] == "none"
    folder = tmp_path / "w" / "comparisons" / "generated"
    for name in ("datapoints", "substitutions"):
        assert pq.read_table(folder / f"{name}.parquet").num_rows == 0
    pages = tmp_path / "w" / "report"
    assert "UNPAIRED" in (pages / "summary.html").read_text()
    first = pq.read_table(folder / "concepts.parquet")
    config.overwrite = True
    compare(config, workdir, from_statistics=True)
    again = pq.read_table(folder / "concepts.parquet")
    assert str(again.to_pydict()) == str(first.to_pydict())
    assert manifest_of(tmp_path / "w")["pairing"]["by"] == "lot"


def test_what_does_not_pair_is_listed_and_limited(tmp_path, config, items):
    (tmp_path / "real").mkdir()
    config.real.path = written.sidecars(tmp_path / "real", items)
    names = [key for key, *_ in items[:-3]] + ["x0y", "z"]
    config.generated.path = draw(tmp_path / "generated", names)
    with pytest.raises(UserError, match="2 of 11 generated images have no real image .'x0y', 'z'"):
        run(config, epath.Path(tmp_path / "w"))
    config.real.max_unpaired = config.generated.max_unpaired = 0.3
    run(config, epath.Path(tmp_path / "w"))
    assert manifest_of(tmp_path / "w")["unpaired"]["generated"] == ["x0y", "z"]


def test_prompts_of_a_generator_must_be_captions_before_any_is_drawn(tmp_path, config):
    presets.on_scenes(config, N)
    config.generator.prompts = str(tmp_path / "prompts.txt")
    (tmp_path / "prompts.txt").write_text("no such scene\n")
    with pytest.raises(UserError, match="compare.pairs=none"):
        run(config, epath.Path(tmp_path / "w"))
    assert not (tmp_path / "w" / "images").exists()


def test_names_that_contradict_captions_are_refused(tmp_path, config, items):
    """Numbers of prompts in another order than the real images, which are numbered, too."""
    (tmp_path / "real").mkdir()
    config.real.path = written.sidecars(tmp_path / "real", items)
    made = tmp_path / "generated"
    config.generated.path = draw(made, [key for key, *_ in items])
    prompts = [told[0] for *_, told in items]
    (made / "prompts.txt").write_text("\n".join(prompts[1:] + prompts[:1]))
    with pytest.raises(UserError, match="12 pairs by name 12 differ in caption: generated '0000"):
        run(config, epath.Path(tmp_path / "w"))
    assert not (tmp_path / "w" / "measures").exists()
    for changed in (prompts, [f"a photo of {prompt}" for prompt in prompts]):
        (made / "prompts.txt").write_text("\n".join(changed))
        arms = (inputs.load_set(config, arm) for arm in ("real", "generated"))
        pairs.check_arms(config, *arms)
    # What a table says goes before captions.
    lines = [
        f'generated/{key}.png,{key},"{told}"'
        for (key, *_), told in zip(items, prompts[::-1], strict=True)
    ]
    config.generated.path = str(tmp_path / "made.csv")
    (tmp_path / "made.csv").write_text("\n".join(["image,key,caption", *lines]))
    arms = (inputs.load_set(config, arm) for arm in ("real", "generated"))
    pairs.check_arms(config, *arms)


def test_captions_that_shards_lack_are_counted(tmp_path, config, items):
    (tmp_path / "real").mkdir()
    told = [(key, image, ["" if i == 3 else each for each in captions])
            for i, (key, image, captions) in enumerate(items)]  # fmt: skip
    config.real.path = written.webdataset_tars(tmp_path / "real", told)
    measure(config, epath.Path(tmp_path / "w"))
    assert manifest_of(tmp_path / "w", "measures/real")["counts"]["without_caption"] == 1
