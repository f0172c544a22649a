"""docs/your_data.md followed to the letter: each row's flags list its layout and pair it."""

import shlex
import shutil

import pytest
from absl import flags

from bsjax.cli import arguments, configs
from bsjax.experiment import inputs, pairs
from tests import documents
from tests.data import written
from tests.documents import REPO

PAGE = REPO / "docs" / "your_data.md"
N = 6


def rows(title):
    return [row[1].strip("`") for row in documents.table(PAGE, title)]


LAYOUTS, NAMED = rows("## Layouts"), rows("## Images made elsewhere")


@pytest.fixture(scope="module")
def items():
    return written.scene_items(N)


@pytest.fixture(scope="module")
def place(tmp_path_factory, items):
    """Every layout of the page under the name that it has there."""
    root = tmp_path_factory.mktemp("data")

    def put(name, write, *more):
        (root / name).mkdir()
        write(root / name, items, *more)

    put("photos", written.sidecars)
    put("listed", written.csv_table)
    text = (root / "listed" / "results.csv").read_text().splitlines()
    first = [line for i, line in enumerate(text) if i % 2 or not i]
    (root / "listed" / "captions.csv").write_text("\n".join(first))
    (root / "listed" / "results.csv").unlink()
    put("imagefolder", written.hf_image_folder)
    put("laion-files", written.img2dataset_files)
    put("laion", written.img2dataset_tars)
    put("shards", written.webdataset_tars)
    put("coco", written.coco)
    put("flickr", written.csv_table)
    put("clone", written.hf_parquet)
    put("records", written.array_records)
    put("tfds", written.tfds_prepared)
    written.hf_saved(root, items)
    put("other", written.tsv_table)
    shutil.move(root / "other", root / "pictures")
    shutil.move(root / "pictures" / "all.tsv", root / "mine.tsv")
    made = {
        "same": [f"{key}.png" for key, *_ in items],
        "samples": [f"{key}_{i}.png" for key, *_ in items for i in (0, 1)],
        "seeds": [f"seed{i}/{key}.png" for key, *_ in items for i in (0, 1)],
        "numbered": [f"img_{i}.png" for i in range(N)],
        "grid": [f"{i:05d}.png" for i in range(2 * N)],
        "parti": [f"p{i}.png" for i in range(3)],
        "made": [f"{i}.png" for i in range(N)],
    }
    for folder, names in made.items():
        for name, (_, image, _) in zip(names, 2 * items, strict=False):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / name).write_bytes(image)
    (root / "numbered" / "prompts.txt").write_text("\n".join(told[0] for *_, told in items))
    (root / "list.tsv").write_text("\n".join(["Prompt", *(told[0] for *_, told in items)]))
    lines = [f"made/{i}.png,{key},{i}" for i, (key, *_) in enumerate(items)]
    (root / "made.csv").write_text("\n".join(["image,key,seed", *lines]))
    return root


def parse(told, monkeypatch, place):
    monkeypatch.chdir(place)
    monkeypatch.setenv("TFDS_DATA_DIR", str(place / "tfds"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", place / "cache")
    values = flags.FlagValues()
    arguments.define_flags(values)
    command = ["bsjax", f"--config={configs.resolve('folders')}", "--workdir=w", *shlex.split(told)]
    arguments.parse_flags(command, "run", values)
    return values.config


def test_the_page_has_every_kind():
    assert len(LAYOUTS) >= 17 and len(NAMED) >= 7


@pytest.mark.filterwarnings("ignore:the load_module")
@pytest.mark.parametrize("told", LAYOUTS)
def test_layouts(told, monkeypatch, place, items):
    config = parse(told, monkeypatch, place)
    images = inputs.load_set(config, "real").images
    n = 5 if "stream" in told else 2 * N if "captions=all" in told else N
    assert len(images.records) == n and not images.bad and not images.n_without_caption
    known = {caption for *_, captions in items for caption in captions}
    assert {record.caption for record in images.records} <= known
    assert images.records[n - 1].read() in [image for _, image, _ in items]
    lost = [note for note in images.notes if note.startswith("LOST IN DOWNLOAD")]
    assert bool(lost) == (told.endswith("laion"))
    assert all("6 of the 8 rows of 2 shards (2 HTTP Error 404" in note for note in lost)


@pytest.mark.filterwarnings("ignore:the load_module")
@pytest.mark.parametrize("told", NAMED)
def test_names_of_images_made_elsewhere(told, monkeypatch, place):
    config = parse(f"--config.real.path=photos {told}", monkeypatch, place)
    real, generated = (inputs.load_set(config, arm) for arm in ("real", "generated"))
    pairs.check_arms(config, real, generated)
    if "pairs=none" in told:
        return
    found = pairs.pair_images(inputs.named(real), inputs.named(generated))
    assert not found.unpaired_real and not found.unpaired_generated
    assert len(set(found.rows_real.tolist())) == N
    order = [record.key for record in real.images.records]
    if "numbered" in told:
        assert [order[row] for row in found.rows_real] == [key for key in sorted(order)]


def test_the_command_of_the_page_is_that_of_its_first_row(monkeypatch, place):
    (command,) = [" ".join(words) for words in documents.commands(PAGE)]
    assert LAYOUTS[0] in command
