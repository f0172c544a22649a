"""Generated images are known by their keys; what is not what was drawn here is drawn anew."""

import shutil

import pytest
from etils import epath

from bsjax.core import artifacts, checksums
from bsjax.core.errors import UserError
from bsjax.data.image_shards import ImageShards, Outcome, Prompt, list_generated
from bsjax.data.images import load_images
from bsjax.data.sources import read_image

N, PER_SHARD = 10, 4
PROMPTS = [Prompt(i, f"key {i}", f"caption {i}") for i in range(N)]


def png(i):
    return b"\x89PNG" + bytes([i]) * 50


def begin(folder, config=1):
    artifacts.begin_stage(folder, config={"a": config}, parents={}, overwrite=False)
    return ImageShards(folder, PROMPTS, PER_SHARD, seed=0)


def draw(shards, places):
    for place in places:
        outcome = Outcome(PROMPTS[place], png(place))
        shards.add(place // PER_SHARD, [(place, outcome)])


def missing(shards):
    return [place for shard in range(shards.n_shards) for place in shards.missing(shard)]


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path):
    """A finished set in a folder whose name means something in patterns."""
    folder = epath.Path(tmp_path) / "run [1]*::x" / "images" / "set"
    shards = begin(folder)
    draw(shards, range(N))
    shards.finish()
    artifacts.write_manifest(folder, stage="generate", config={"a": 1}, parents={}, counts={})
    return folder


def test_records_have_keys_captions_and_addresses(folder):
    records = list_generated(folder).records
    assert [record.key for record in records] == [prompt.key for prompt in PROMPTS]
    for i, record in enumerate(records):
        assert record.read() == read_image(record.path) == png(i)
        assert record.caption == PROMPTS[i].caption


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "shard-00001.arrayrecord").unlink(),
        lambda folder: shutil.copy(
            folder / "shard-00000.arrayrecord", folder / "shard-00001.arrayrecord"
        ),
        lambda folder: shutil.copy(
            folder / "shard-00000.arrayrecord", folder / "shard-00003.arrayrecord"
        ),
        lambda folder: flip(folder / "shard-00002.arrayrecord", 100),
        lambda folder: flip(folder / "images.parquet", 20),
    ],
    ids=["missing", "copied", "foreign", "flipped", "table"],
)
def test_no_image_stands_under_another_caption(folder, damage):
    records = list_generated(folder).records
    damage(folder)
    checksums._known.clear()
    with pytest.raises(UserError, match=r"shard-0000\d.arrayrecord|images.parquet") as error:
        list_generated(folder)
    assert "\n" not in str(error.value)
    # Also where no one asked before: by what each record says of itself.
    _, mask, _ = load_images(records, N, 8, 8)
    for i, record in enumerate(records):
        try:
            assert record.read() == png(i)
        except (UserError, RuntimeError, ValueError, IndexError, OSError):
            assert not mask[i]


def test_a_journal_is_kept_up_to_what_is_damaged(tmp_path, caplog):
    folder = epath.Path(tmp_path)
    draw(begin(folder), [0, 1, 2, 4, 5])
    assert missing(begin(folder)) == [3, 6, 7, 8, 9]
    journal = folder / "journal-00000"
    whole = journal.read_bytes()
    for place, kept in ((5, 0), (len(whole) // 2, 1), (len(whole) - 5, 2)):
        journal.write_bytes(whole)
        flip(journal, place)
        assert missing(begin(folder)) == [*range(kept, 4), 6, 7, 8, 9]
        assert f"behind its {kept} images is drawn anew" in caplog.text
    # Of another shard, or of a run with another config.
    shutil.copy(folder / "journal-00001", journal)
    assert missing(begin(folder)) == [0, 1, 2, 3, 6, 7, 8, 9]
    other = epath.Path(tmp_path / "other")
    begin(other, config=2)
    shutil.copy(folder / "journal-00001", other / "journal-00001")
    assert missing(begin(other, config=2)) == list(range(N))


def test_a_damaged_shard_of_an_unfinished_set_is_drawn_anew(tmp_path):
    folder = epath.Path(tmp_path)
    draw(begin(folder), range(8))
    assert missing(begin(folder)) == [8, 9]
    flip(folder / "shard-00001.arrayrecord", 60)
    checksums._known.clear()
    assert missing(begin(folder)) == [4, 5, 6, 7, 8, 9]
    assert not (folder / "shard-00001.json").exists()
    flip(folder / "shard-00000.json", 30)
    (folder / "journal-00002").write_bytes(b"left behind")
    shards = begin(folder)
    assert missing(shards) == list(range(N))
    draw(shards, range(N))
    shards.finish()
    assert not (folder / "journal-00002").exists()
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".arrayrecord") == [
        f"shard-{i:05d}.arrayrecord" for i in range(3)
    ]
