"""`bsjax stress`: prompts that ask for a concept; images do not depend on how they are drawn."""

import json
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from etils import epath

from bsjax import presets
from bsjax.analysis import stress as analysis
from bsjax.core.errors import Preempted, UserError
from bsjax.data.captions import ImageRecord
from bsjax.data.image_shards import ImageShards, list_generated
from bsjax.experiment import held_out
from bsjax.results import columns
from bsjax.results.measures import Measured
from bsjax.results.statistics import read_statistics
from bsjax.results.stress import percent, read_stressed
from bsjax.stages import stress as stage
from bsjax.stages.compare import compare
from bsjax.stages.generate import generate
from bsjax.stages.measure import measure
from bsjax.stages.stress import list_images, read_prompts, stress
from bsjax.stats.asked import find_asking

CIRCLES, CRESCENTS, LIMIT = 37, 42, 120  # concepts of the SAE that comes with bsjax
SETS = frozenset(), frozenset()


def make_config(**generator):
    config = presets.experiment()
    presets.on_scenes(config, LIMIT)
    config.generator.update(
        name="tests.generators.stripes:Stripes", batch_per_device=8, images_per_shard=4, **generator
    )
    return config


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("stressed"))
    for step in (generate, measure, compare):
        step(make_config(), folder)
    return folder


@pytest.fixture
def workdir(compared, tmp_path):
    return epath.Path(shutil.copytree(compared, tmp_path / "w"))


def pixels(workdir, folder="concept-37"):
    records = list_generated(workdir / "stress" / "scenes" / folder / "images").records
    return {record.key: record.read() for record in records}


def test_captions_that_ask_are_held_out_and_tables_say_what_was_drawn(workdir, capsys):
    stress(make_config(), workdir, concept=CIRCLES, samples=2, captions=5)
    line = capsys.readouterr().out
    folder = workdir / "stress" / "scenes" / "concept-37"
    made = read_stressed(folder)
    prompts, samples = made.prompts.to_pylist(), made.samples.to_pylist()
    for table, told in (("prompts", columns.STRESS_PROMPTS), ("samples", columns.STRESS_SAMPLES)):
        schema = getattr(made, table).schema
        assert [(f.name, str(f.type)) for f in schema] == [(c.name, c.type) for c in told]
        assert f"stress/<set>/<finding>/{table}.parquet" in columns.OF_STRESS
    statistics = read_statistics(workdir / "comparisons" / "scenes" / "statistics.npz")
    assert len(prompts) == 5 and all("circle" in row["text"] for row in prompts)
    assert not {row["text"] for row in prompts} & set(statistics.captions)
    real = pq.read_table(folder / "real" / "images.parquet").to_pylist()
    assert not {row["key"] for row in real} & set(statistics.keys)
    assert [row["real_n"] for row in prompts] == [1] * 5
    # Real circles show it; stripes do not.
    assert sum(row["real_rate"] for row in prompts) >= 4
    assert [row["passes"] for row in prompts] == [0] * 5
    assert [(row["prompt"], row["sample"]) for row in samples] == [
        (p, s) for p in range(5) for s in range(2)
    ]
    assert set(pixels(workdir)) == {row["image"] for row in samples}
    told = made.manifest["captions"]
    assert (told["how"], told["words"], told["held_out"]) == ("asking", ["circles"], True) or (
        told["words"] == ["circle"]
    )
    assert made.manifest["counts"] == {
        "prompts": 5, "images": 10, "passes": 0, "tries": 2, "prompts_passed": 0,
        "prompts_with_real": 5,
    }  # fmt: skip
    assert made.manifest["notes"] == []
    assert line.count("\n") == 1 and line.startswith("concept 37 (circles")
    assert "drawn in 0 of 10 images [0 %, 28 %] of 5 captions; over all such captions 0 %" in line
    assert "over all such captions 0 % [0 %, 43 %]" in line  # five captions are no ten
    assert "Held out: the captions and their real images lie behind real.limit." in line
    # Nothing is drawn or measured again, and the numbers are the same.
    before = {p: p.stat().st_mtime_ns for p in pathlib.Path(folder).rglob("*") if p.is_file()}
    stress(make_config(), workdir, concept=CIRCLES, samples=2, captions=5)
    assert capsys.readouterr().out == line
    assert {p: p.stat().st_mtime_ns for p in before} == before
    with pytest.raises(UserError, match="samples was 2 and is now 3"):
        stress(make_config(), workdir, concept=CIRCLES, samples=3, captions=5)


def test_images_depend_on_prompt_and_sample_alone(workdir, monkeypatch, compared, tmp_path):
    stress(make_config(), workdir, concept=CIRCLES, samples=3, captions=4)
    whole = pixels(workdir)
    # Fewer captions and samples, another batch, killed after the first batch: the same bytes.
    again = epath.Path(shutil.copytree(compared, tmp_path / "again"))
    config, add = make_config(), ImageShards.add
    config.generator.batch_per_device = 1

    def stop(self, shard, outcomes):
        add(self, shard, outcomes)
        raise Preempted("stopped")

    monkeypatch.setattr(ImageShards, "add", stop)
    with pytest.raises(Preempted):
        stress(config, again, concept=CIRCLES, samples=2, captions=3)
    monkeypatch.setattr(ImageShards, "add", add)
    stress(config, again, concept=CIRCLES, samples=2, captions=3)
    found = pixels(again)
    assert set(found) == {f"p{p:05d}-s{s:04d}" for p in range(3) for s in range(2)}
    assert all(found[key] == whole[key] for key in found)
    assert len(set(whole.values())) == len(whole)  # each image has noise of its own
    # Nor the noise of the images that were compared.
    keys = [image.index for image in list_images(["a", "b"], 2)]
    assert keys == [0, 1, analysis.MOST_SAMPLES, analysis.MOST_SAMPLES + 1]
    config = make_config()
    config.seed, config.overwrite = 7, True
    stress(config, again, concept=CIRCLES, samples=2, captions=3)
    assert not set(pixels(again).values()) & set(whole.values())


def test_prompts_of_ones_own(workdir, capsys):
    captions = read_statistics(workdir / "comparisons" / "scenes" / "statistics.npz").captions
    known = next(text for text in captions if "circle" in text)
    path = workdir / "prompts.txt"
    path.write_bytes(f"\ufeffa circle\r\n\r\n  {known} \r\na circle\r\n".encode())
    stress(make_config(), workdir, concept=CIRCLES, samples=2, prompts=str(path))
    made = read_stressed(workdir / "stress" / "scenes" / "concept-37-prompts")
    assert made.prompts["text"].to_pylist() == ["a circle", known]
    assert made.prompts["real_n"].to_pylist()[0] == 0
    assert made.prompts["real_rate"].to_pylist() == [None, 1.0]
    line = capsys.readouterr().out
    assert "of 2 prompts; over all such prompts" in line and "(known of 1)" in line
    path.write_text("a circle\nanother one\n")
    with pytest.raises(UserError, match="captions was made anew"):
        stress(make_config(), workdir, concept=CIRCLES, samples=2, prompts=str(path))


def test_captions_that_are_not_held_out_are_said_to_be(workdir, monkeypatch, capsys):
    monkeypatch.setattr(
        held_out, "list_held_out", lambda *_: held_out.HeldOut([], *SETS, 0, "none")
    )
    stress(make_config(), workdir, concept=CIRCLES, samples=1, captions=4)
    made = read_stressed(workdir / "stress" / "scenes" / "concept-37")
    statistics = read_statistics(workdir / "comparisons" / "scenes" / "statistics.npz")
    assert set(made.prompts["text"].to_pylist()) <= set(statistics.captions)
    assert made.manifest["captions"]["held_out"] is False
    assert made.manifest["notes"][0].startswith("NOT HELD OUT: the captions are among those")
    assert "NOT HELD OUT" in capsys.readouterr().out
    assert not (workdir / "stress" / "scenes" / "concept-37" / "real").exists()


def test_where_no_word_goes_with_it_real_images_choose(workdir, monkeypatch, capsys):
    monkeypatch.setattr(
        stage, "find_asking", lambda _, __, others: ([], np.zeros(len(others), bool))
    )
    stress(make_config(), workdir, concept=CIRCLES, samples=1, captions=2)
    made = read_stressed(workdir / "stress" / "scenes" / "concept-37")
    real = pq.read_table(workdir / "stress" / "scenes" / "concept-37" / "real" / "images.parquet")
    assert real.num_rows == 2 * stage.MEASURED_EACH
    texts = made.prompts["text"].to_pylist()
    assert len(texts) == 2 and all("circle" in text for text in texts)  # as their images have it
    assert made.prompts["real_rate"].to_pylist() == [None, None]
    assert (
        "every real image of these captions shows it, by which they were" in capsys.readouterr().out
    )
    assert made.manifest["captions"]["how"] == "showing"


def test_mistakes_are_one_line(workdir, tmp_path):
    def refused(pattern, config=None, folder=workdir, **choices):
        with pytest.raises(UserError, match=pattern) as error:
            stress(config or make_config(), folder, **({"concept": CIRCLES} | choices))
        assert "\n" not in str(error.value)

    refused("comparisons/scenes/manifest.json is missing; run `bsjax compare`",
            folder=epath.Path(tmp_path / "new"))  # fmt: skip
    refused("--samples=0: expected a whole number from 1 to 1000", samples=0)
    refused("--captions=0: expected a whole number from 1", captions=0)
    refused("--concept=512: expected one of the 512 concepts of scenes, from 0 to 511", concept=512)
    refused("--finding=99: the comparison of scenes has no such finding: it has", finding=99)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    refused("--prompts=.*empty.txt holds no prompt; write one per line", prompts=str(empty))
    refused("nowhere.txt cannot be read", prompts=str(tmp_path / "nowhere.txt"))
    config = make_config()
    config.generator = presets.no_generator()
    refused("a folder of images cannot be asked for others", config)
    config = make_config()
    config.sae.threshold = 0.5
    refused(r"sae.threshold is 0.5, and was .* when .*measures/scenes was made", config)
    config = make_config(steps=7)
    refused("generator.steps is 7, and was 20 when .*images/scenes was made", config)
    for folder, parent in (("measures", "sae"), ("measures", "encoder"), ("images", "generator")):
        path = workdir / folder / "scenes" / "manifest.json"
        before = path.read_text()
        told = json.loads(before)
        told["parents"][parent] = "another"
        from bsjax.core import checksums  # the manifest says what it is known by

        del told[checksums.CHECKSUM]
        path.write_text(json.dumps(checksums.seal(told)))
        refused(f"the {parent} is another than .*{folder}/scenes was made with")
        path.write_text(before)


def test_a_finding_is_found_by_its_number():
    row = {"finding": 2, "concepts": [5, 3], "words": "moons", "verdict": "suppressed"}
    rest = {c.name: 0.0 for c in columns.FINDINGS} | {"instead": [], "asked_n": 0}
    table = columns.make_table(columns.FINDINGS, {k: [v] for k, v in (rest | row).items()})
    none = table.slice(0, 0)
    target = analysis.find_target("x", table, none, 2, None)
    assert target == ("finding 2", 5, (5, 3), "moons", "suppressed")
    assert target.folder == "finding-2"
    with pytest.raises(UserError, match=r"finding=1: .* has no such finding: it has 2 \(moons\)"):
        analysis.find_target("x", table, none, 1, None)
    with pytest.raises(UserError, match="it has none; set concept"):
        analysis.find_target("x", none, none, 1, None)


def test_rates_of_a_table_by_hand():
    target = analysis.Target("finding 2", 1, (1, 0), "moons", "suppressed")
    real = [(2, 1), (0, 0), (1, 1)]
    chosen = analysis.Chosen(["a", "b", "c"], real, "asking", ["moons"], True, "Told.")
    # One image of the last prompt could not be used.
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 2)]
    codes = np.zeros((8, 3), np.float32)
    codes[[0, 2, 7], 1], codes[[0, 3], 0], codes[:, 2] = (0.5, 2, 1), 9, 7
    keys = [analysis.image_key(*place) for place in places]
    table = {"key": keys, "caption": keys, "path": keys}
    generated = Measured({}, pa.table(table), sp.csr_array(codes), np.zeros((3, 1), np.int32))
    assert [analysis.place_of(key) for key in keys] == places
    made = analysis.tabulate(target, chosen, generated, places)
    assert made.prompts["n"].to_pylist() == [3, 3, 2]
    assert made.prompts["passes"].to_pylist() == [2, 0, 1]
    assert made.prompts["pass_at_1"].to_pylist() == pytest.approx([2 / 3, 0, 1 / 2])
    assert made.prompts["pass_at_n"].to_pylist() == pytest.approx([1, 0, 1])  # of two
    assert made.prompts["real_rate"].to_pylist() == [0.5, None, 1.0]
    fires = [True, False, True, False, False, False, False, True]
    assert made.samples["fires"].to_pylist() == fires
    assert made.samples["energy"].to_pylist() == [0.5, 0, 2, 0, 0, 0, 0, 1]
    assert made.samples["concepts"].to_pylist() == [2, 0, 1, 1, 0, 0, 0, 1]
    rates = made.manifest["rates"]
    assert rates["image"]["share"] == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert rates["at_least_once"]["share"] == pytest.approx(2 / 3)
    assert rates["real"]["share"] == 0.75
    assert made.manifest["pass_at"] == pytest.approx({"1": (2 / 3 + 1 / 2) / 3, "2": 2 / 3})
    assert made.manifest["counts"]["tries"] == 2
    assert "finding 2 (moons): drawn in 3 of 8 images" in str(made)
    assert "at least once in 2 tries 67 % [" in str(made) and "(known of 2). Told." in str(made)
    lost = analysis.Chosen(["a", "b", "c", "lost"], [*real, (0, 0)], "asking", [], True, "")
    with pytest.raises(UserError, match="not one image of the prompt 'lost' can be used"):
        analysis.tabulate(target, lost, generated, places)


def test_words_are_learnt_on_other_captions_than_those_chosen():
    captions = [f"{thing} number {i}" for i in range(40) for thing in ("moon", "sun")]
    real = {text: (1, int(text.startswith("moon"))) for text in captions}
    chosen = analysis.choose_known(analysis.Compared(captions, real), 7, seed=0)
    taught = {captions[row] for row in np.random.default_rng(0).permutation(80)[:40]}
    assert (chosen.how, chosen.words, chosen.is_held_out) == ("asking", ["moon"], False)
    assert len(chosen.captions) == 7 and not set(chosen.captions) & taught
    assert chosen.real == [(1, 1)] * 7
    # No word goes with it: those whose real images show it, of which nothing can be said then.
    real = {text: (1, int(i in (3, 50))) for i, text in enumerate(captions)}
    chosen = analysis.choose_known(analysis.Compared(captions, real), 7, seed=0)
    assert (chosen.how, chosen.real) == ("showing", [(0, 0)] * 2)
    assert set(chosen.captions) == {captions[3], captions[50]}
    with pytest.raises(
        UserError, match="no prompts: no word of the captions goes with the concept"
    ):
        analysis.choose_known(analysis.Compared(captions, dict.fromkeys(captions, (1, 0))), 7, 0)


def test_other_captions_ask_by_words_that_these_teach():
    captions = [f"{thing} {i}" for i in range(9) for thing in ("red moons", "a moon", "the sun")]
    shows = np.array(["moon" in text for text in captions])
    words, asks = find_asking(captions, shows, ["two moons", "the sun", "MOON", "moonlight", ""])
    assert words in (["moon"], ["moons"], ["moon", "red"])
    assert asks.tolist() == [True, False, True, False, False]
    assert find_asking(captions, np.zeros(27, bool), ["a moon"])[0] == []


def test_prompts_are_read_as_people_write_them(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\n a \rb\r\na\n日本\n".encode("utf-16"))
    assert read_prompts(str(path)) == ["a", "b", "日本"]


@pytest.mark.parametrize(
    ("share", "told"),
    [(0, "0 %"), (1, "100 %"), (0.004, "0.4 %"), (0.995, "99.5 %"), (0.125, "12 %")],
)
def test_a_share_is_told_as_what_it_is(share, told):
    assert percent(share) == told


def test_held_out_captions_come_once_and_are_none_of_those_compared():
    records = [ImageRecord(str(i), "", f" caption {i % 60} ", {}) for i in range(100)]
    keys, captions = frozenset(map(str, range(40))), frozenset(["caption 50", "caption 3"])
    held = held_out.HeldOut(records, keys, captions, 0, "")
    found = [pair for block in held.blocks() for pair in block]
    texts = [text for text, _ in found]
    # Rows 40 to 99 but 50, which are captions 40 to 59 and 0 to 39 but 3.
    assert sorted(texts) == sorted({f"caption {i}" for i in range(60)} - captions)
    assert not {record.key for _, record in found} & keys
    assert texts != sorted(texts) and texts == [t for b in held.blocks() for t, _ in b]
    assert texts != [t for b in held._replace(seed=1).blocks() for t, _ in b]


@pytest.mark.slow
def test_a_planted_gap_is_not_drawn_and_what_is_no_gap_is(tmp_path):
    """The generator of the scenes world: crescents were drawn as rings, circles as circles."""
    config = presets.experiment()
    presets.on_scenes(config, 200)
    for step in (generate, measure, compare):
        step(config, epath.Path(tmp_path))
    found = {}
    for concept in (CRESCENTS, CIRCLES):
        stress(config, epath.Path(tmp_path), concept=concept, samples=4, captions=8)
        found[concept] = read_stressed(
            tmp_path / "stress" / "scenes" / f"concept-{concept}"
        ).manifest
    for told in found.values():
        assert told["captions"]["held_out"] and told["captions"]["how"] == "asking"
        assert told["rates"]["real"]["share"] >= 0.7
    assert found[CRESCENTS]["counts"]["passes"] <= 2
    assert found[CRESCENTS]["rates"]["image"]["high"] < found[CRESCENTS]["rates"]["real"]["low"]
    assert found[CIRCLES]["rates"]["image"]["share"] >= 0.4
    assert found[CIRCLES]["rates"]["at_least_once"]["share"] >= 0.8
