"""`bsjax compare --replicate`: verdicts under another SAE, from two workdirs."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

import bsjax
from bsjax import presets
from bsjax.analysis.replication import Judged, replicate
from bsjax.core.artifacts import write_manifest
from bsjax.core.errors import UserError
from bsjax.results.columns import REPLICATED
from bsjax.results.comparisons import read_concepts, read_stored
from bsjax.results.replications import read_replication
from bsjax.stages.compare import compare
from bsjax.stages.replicate import check_images
from tests.report.artifacts import write_arm

N, K = 150, 24


def arms(seed=0):
    """Concepts 0 to 3 are suppressed, 4 and 5 exaggerated."""
    rng = np.random.default_rng(seed)
    real = rng.gamma(2, 1, (N, K)) * (rng.random((N, K)) < 0.3)
    generated = rng.gamma(2, 1, (N, K)) * (rng.random((N, K)) < 0.3)
    generated[:, :4] *= rng.random((N, 4)) < 0.1
    real[:, 4:6] *= rng.random((N, 2)) < 0.3
    generated[:, 4:6] = rng.gamma(2, 1, (N, 2)) * (rng.random((N, 2)) < 0.8)
    return real, generated


def another(codes):
    """Concepts the other way round, the first (now last) lost, others somewhat noisier."""
    rng = np.random.default_rng(1)
    return (codes * rng.gamma(20, 0.05, codes.shape))[:, :0:-1]


CAPTIONS = [f"scene {row}" for row in range(N)]


@pytest.fixture
def workdirs(tmp_path):
    real, generated = arms()
    here, there = tmp_path / "here", tmp_path / "there"
    bsjax.compare_codes(real, generated, CAPTIONS).save(here)
    bsjax.compare_codes(another(real), another(generated), CAPTIONS).save(there)
    config = presets.experiment()
    config.generator.name = "none"
    return config, here, there


def test_verdicts_are_looked_up_in_the_other_workdir(workdirs, capsys):
    config, here, there = workdirs
    before = {path: path.read_bytes() for root in (here, there) for path in root.rglob("*.*")}
    compare(config, here, replicate=str(there))
    line = capsys.readouterr().out
    made = read_replication(here / "replications" / "generated" / "there")
    table = made.concepts
    assert table.schema.names == [column.name for column in REPLICATED]
    assert table["other"].to_pylist() == [None, *range(K - 2, -1, -1)]
    assert min(table["correlation"].to_pylist()[1:]) > 0.8
    assert table["replicates"].to_pylist()[:6] == ["unmatched"] + ["same verdict"] * 5
    left, right = (
        pq.read_table(root / "comparisons" / "generated" / "concepts.parquet")
        for root in (here, there)
    )
    for name in ("log_ratio", "low", "high", "verdict"):
        assert table[name].to_pylist() == left[name].to_pylist()
        expected = [None, *right[name].to_pylist()[::-1]]
        assert table[f"other_{name}"].to_pylist() == expected
    manifest = made.manifest
    counts = manifest["counts"]
    assert (counts["called"], counts["unmatched"], counts["same_verdict"]) == (6, 1, 5)
    assert (counts["matched"], counts["matched_by_chance"], counts["pairs"]) == (K - 1, 0, N)
    assert counts["shown_by_too_few"] == 0
    same = manifest["same_verdict"]
    assert (same["agree"], same["of"], same["share"], same["high"]) == (5, 5, 1.0, 1.0)
    assert same["low"] == pytest.approx(5 / (5 + 1.96**2), abs=1e-3)
    # 3 of the 5 are suppressed as 3 of the 23 counterparts are; 2 exaggerated.
    assert same["chance"] == pytest.approx((3 * 3 / 23 + 2 * 2 / 23) / 5)
    assert manifest["unmatched"] == pytest.approx(1 / 6)
    assert manifest["notes"] == []
    assert line.count("\n") == 1 and str(there) in line
    assert "1 of 6 suppressed or exaggerated concepts have no counterpart" in line
    assert (
        "of 5 that both SAEs judge 100% have the same verdict [57%, 100%] (by chance 11%)" in line
    )
    # Both comparisons are as they were, and the report finds no comparison too many.
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in (here / "comparisons").iterdir()] == ["generated"]


def test_it_is_made_once_and_anew_after_a_comparison(workdirs, capsys):
    config, here, there = workdirs
    for _ in range(2):
        compare(config, here, replicate=str(there))
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    config.compare.fdr = 0.01
    for root in (here, there):
        compare(config, root, from_statistics=True)
    with pytest.raises(UserError, match="there/concepts.parquet was made anew"):
        compare(config, here, replicate=str(there))
    config.overwrite = True
    compare(config, here, replicate=str(there))


def test_the_very_same_sae_is_told(workdirs, tmp_path):
    config, here, _ = workdirs
    twin = tmp_path / "twin"
    bsjax.compare_codes(*arms(), CAPTIONS).save(twin)
    compare(config, here, replicate=str(twin))
    made = read_replication(here / "replications" / "generated" / "twin")
    assert ["very same" in note for note in made.manifest["notes"]] == [True]
    assert made.manifest["same_verdict"]["share"] == 1.0


def test_order_and_keys_of_pairs(workdirs):
    """Pairs are found by key; others than there are refused."""
    _, here, there = workdirs
    expected = bsjax.replicate(here, there)

    sides = []
    for root in (here, there):
        statistics, _, manifest = read_stored(root / "comparisons" / "generated")
        table, _ = read_concepts(root / "comparisons" / "generated")
        sides.append(Judged(root.name, statistics, table, manifest))
    order = np.random.default_rng(0).permutation(N)
    stored = sides[1].statistics
    moved = dataclasses.replace(
        stored,
        real=stored.real[order],
        generated=stored.generated[order],
        keys=[stored.keys[row] for row in order],
        captions=[stored.captions[row] for row in order],
    )
    found = replicate(sides[0], dataclasses.replace(sides[1], statistics=moved))
    assert found.concepts.equals(expected.concepts)
    other = dataclasses.replace(stored, captions=["other", *stored.captions[1:]])
    with pytest.raises(UserError, match="differ in the captions of 1 pairs, such as '0'; measure"):
        replicate(sides[0], dataclasses.replace(sides[1], statistics=other))


def test_mistakes_are_one_line(workdirs, tmp_path):
    config, here, there = workdirs

    def refused(pattern, other=there):
        with pytest.raises(UserError, match=pattern):
            compare(config, here, replicate=str(other))

    refused("is the workdir itself; set it", here)
    refused("is the workdir itself; set it", f"{here}/../here")
    refused("does not exist; set it to another workdir", tmp_path / "nowhere")
    refused("names no workdir", "")  # the current folder is not meant
    (tmp_path / "empty").mkdir()
    refused(r"no comparison of generated \(it has none\); run", tmp_path / "empty")
    real, generated = arms()
    named = tmp_path / "named"
    bsjax.compare_codes(real, generated, CAPTIONS).save(named)
    (named / "comparisons" / "generated").rename(named / "comparisons" / "sd15")
    refused(r"no comparison of generated \(it has sd15\)", named)
    fewer = tmp_path / "fewer"
    bsjax.compare_codes(real[:-2], generated[:-2], CAPTIONS[:-2]).save(fewer)
    refused(r"compares 150 pairs, .*fewer.* 148: 2 are of .*here.* alone \(such as '148', '149'\)",
            fewer)  # fmt: skip
    ruled = tmp_path / "ruled"
    bsjax.compare_codes(real, generated, CAPTIONS, margin=3).save(ruled)
    refused(r"differ in compare.margin: 1.5 and 3.0; compare both by the same rules", ruled)
    (there / "comparisons" / "generated" / "statistics.npz").write_bytes(b"x")
    refused("statistics.npz")


def measured(root, digest, names=("real",)):
    for name in names:
        write_arm(root, name, K)
        folder = root / "measures" / name
        told = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").unlink()
        write_manifest(
            folder, stage="measure", config=told["config"], counts=told["counts"],
            parents={"images": digest, "encoder": "e", "sae": "s"},
        )  # fmt: skip


def test_other_images_are_told_and_copies_are_not(tmp_path):
    here, there = tmp_path / "a", tmp_path / "b"
    for root in (here, there):
        measured(root, "one")
    check_images("real", "the real images", here, there)  # the digests are the same
    elsewhere = tmp_path / "c"
    measured(elsewhere, "two")
    # Of four images the last file is gone, so nothing can be told of it.
    with pytest.raises(UserError, match="'d' cannot be read to tell whether it is the same image"):
        check_images("real", "the real images", here, elsewhere)
    for root in (here, elsewhere):
        picture = root / "measures" / "real"
        (picture / "3.png").write_bytes((picture / "2.png").read_bytes())
    check_images("real", "the real images", here, elsewhere)
    (elsewhere / "measures" / "real" / "1.png").write_bytes(b"another")
    with pytest.raises(UserError, match="differ in images: 'b' is .*1.png and .*; measure both"):
        check_images("real", "the real images", here, elsewhere)
    check_images("real", "the real images", here, tmp_path / "codes alone")


def test_from_python(workdirs):
    _, here, there = workdirs
    real, generated = arms()
    sides = [
        bsjax.compare_codes(real, generated),
        bsjax.compare_codes(another(real), another(generated)),
    ]
    made = bsjax.replicate(*sides)
    assert str(made).startswith("1 of 6 suppressed or exaggerated concepts have no counterpart")
    assert made.concepts["replicates"].to_pylist()[1:6] == ["same verdict"] * 5
    stored = bsjax.replicate(here, str(there))
    assert stored.concepts["other"].to_pylist() == made.concepts["other"].to_pylist()
    for pair, pattern in (
        ((sides[0], sides[0]), "here and there are one comparison; give there of another SAE"),
        ((here, here), "here and there are one comparison"),
        ((sides[0], 3), "there is a int; give a comparison or a workdir"),
        ((here, here.parent), "holds no finished comparison"),
    ):
        with pytest.raises(UserError, match=pattern):
            bsjax.replicate(*pair)
    with pytest.raises(UserError, match="no comparison name='x'; set it to one of generated"):
        bsjax.replicate(here, there, name="x")
    nothing = sp.csr_array((N, K))
    bare = bsjax.replicate(bsjax.compare_codes(nothing, nothing), sides[1])
    assert str(bare) == (
        "0 of 0 suppressed or exaggerated concepts have no counterpart (0 show in too few real"
        " images to be matched), 0 one with too few images; of the others there is none"
    )
