"""Does bsjax find what was planted? Precision and recall on the scenes world, whose truth is known.

    python tests/benchmarks/planted.py [--images=4000] [--workdir=runs/planted]

Runs `generate` and `measure` of configs/scenes.py (resumes, repeats nothing), then asks
(a) which concepts cover which factor value: AUROC of their image energy, on other real scenes than
    those compared; of those that cover a value and have three quarters of their energy on images
    that show it, the one with the largest AUROC stands for it,
(b) what the verdicts on these concepts are worth, for several numbers of images; and the findings
    that all called concepts come to, each named by the factor value that its first concept tells
    best, with what was drawn instead,
(c) how many concepts are called where there is no difference: real against other real scenes,
(d) how well copies are told from other pairs,
(e) whether the generator draws what it was asked for, by linear probes on the encoder.
Prints tables; writes planted.json and planted.png into the workdir's report folder.
"""

import argparse
import io
import json
import pathlib
import runpy

import jax
import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from etils import epath
from PIL import Image
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve

from bsjax.analysis.comparison import Method, compare_codes
from bsjax.core.artifacts import write_json
from bsjax.core.logs import quiet_libraries
from bsjax.data import scenes
from bsjax.data.image_shards import list_generated
from bsjax.experiment import inputs
from bsjax.planted.generator import Planted
from bsjax.results.statistics import read_statistics
from bsjax.stages.compare import compare
from bsjax.stages.generate import generate
from bsjax.stages.measure import measure
from bsjax.stats import clusters, verdicts
from bsjax.stats.datapoints import score_pairs

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

REPO = pathlib.Path(__file__).resolve().parents[2]
OTHER_SEED = "3"  # of the real scenes that concepts are matched to factors on, and of the A/A arm
COVERED = 0.9  # AUROC
SIZES = (250, 500, 1000, 4000)
PURE = 0.75  # share of a concept's energy: its delta then follows the value's share
COPY_PSNR = 25.0  # dB
PROBE_IMAGES = 2000
JUDGED = ("delta", "verdict")  # columns that tell what a concept's verdict is worth
VALUES = [(name, value) for name, values in scenes.FACTORS.items() for value in values]


def expected_change() -> dict[tuple[str, str], float]:
    """Factor value -> its share among the pictures taught, in shares asked for."""
    gaps = Planted.read()
    others = (len(scenes.BACKGROUNDS) - gaps.frequent_times) / (len(scenes.BACKGROUNDS) - 1)
    change = dict.fromkeys(VALUES, 1.0)
    change |= {("background", name): others for name in scenes.BACKGROUNDS}
    change["background", gaps.frequent_background] = gaps.frequent_times
    change["shape", gaps.never_shape[0]], change["shape", gaps.never_shape[1]] = 0.0, 2.0
    change["colour", gaps.rare_colour[0]] = gaps.rare_share
    change["colour", gaps.rare_colour[1]] = 2.0 - gaps.rare_share
    change["count", gaps.never_count[0]], change["count", gaps.never_count[1]] = 0.0, 2.0
    return change


def planted_values() -> dict[tuple[str, str], str]:
    """The gaps themselves: factor value -> the verdict that it should get."""
    gaps = Planted.read()
    return {
        ("shape", gaps.never_shape[0]): verdicts.SUPPRESSED,
        ("colour", gaps.rare_colour[0]): verdicts.SUPPRESSED,
        ("count", gaps.never_count[0]): verdicts.SUPPRESSED,
        ("background", gaps.frequent_background): verdicts.EXAGGERATED,
    }


def one_hot(factors: np.ndarray) -> np.ndarray:
    """[N, 4] -> [N, 30], in the order of `VALUES`."""
    columns = [
        np.eye(len(values), dtype=bool)[factors[:, i]]
        for i, values in enumerate(scenes.FACTORS.values())
    ]
    return np.concatenate(columns, axis=1)


def auroc_table(codes: sp.csr_array, shown: np.ndarray) -> np.ndarray:
    """AUROC of each concept's image energy for each factor value [K, 30]; ties count half."""
    n, n_concepts = codes.shape
    ranks = np.stack([stats.rankdata(codes[:, [k]].toarray()[:, 0]) for k in range(n_concepts)])
    positives = shown.sum(axis=0)
    sums = ranks @ shown.astype(np.float64)  # [K, 30]
    return (sums - positives * (positives + 1) / 2) / (positives * (n - positives))


def purity_table(codes: sp.csr_array, shown: np.ndarray) -> np.ndarray:
    """Share of each concept's energy that lies on images showing each factor value [K, 30]."""
    total = np.asarray(codes.sum(axis=0)).reshape(-1, 1)
    return np.asarray(codes.T @ shown.astype(np.float64)) / np.maximum(total, 1e-12)


def run_stages(workdir: pathlib.Path, n: int) -> tuple[pathlib.Path, pathlib.Path]:
    """Workdirs of the comparison and of real against other real scenes."""
    get_config = runpy.run_path(str(REPO / "configs" / "scenes.py"))["get_config"]
    config = get_config(f"limit={n}")
    compared = epath.Path(workdir / "compared")
    generate(config, compared)
    measure(config, compared)
    compare(config, compared)
    config = get_config(f"limit={n}")
    config.generator.name, config.generated = "none", config.real.copy_and_resolve_references()
    config.generated.path = OTHER_SEED
    nothing = epath.Path(workdir / "nothing")
    measure(config, nothing)
    return pathlib.Path(compared), pathlib.Path(nothing)


def read_codes(folder: pathlib.Path, n: int) -> sp.csr_array:
    """Image codes, rows in the order of the scenes."""
    codes = sp.csr_array(sp.load_npz(folder / "image_codes.npz"))
    keys = pq.read_table(folder / "images.parquet", columns=["key"])["key"].to_pylist()
    assert keys == [f"{row:09d}" for row in range(n)], "an image is missing"
    return codes


def spokesman(covering: np.ndarray, aurocs: np.ndarray, purity: np.ndarray) -> int:
    """The concept that stands for a value: of the pure ones that which tells it best.

    Args:
      covering: concepts that cover the value, at least one.
      aurocs: [K], of the value.
      purity: [K], of the value. If no concept is pure, the purest stands for it.
    """
    pure = covering[purity[covering] >= PURE]
    if not pure.size:
        return int(covering[purity[covering].argmax()])
    return int(pure[np.lexsort((purity[pure], aurocs[pure]))[-1]])


def judge_factors(columns: dict[str, np.ndarray], aurocs: np.ndarray, purity: np.ndarray) -> dict:
    """How the verdicts on the concepts of the covered factor values compare with the truth."""
    change, planted = expected_change(), planted_values()
    rows = {}
    for place, value in enumerate(VALUES):
        covering = np.flatnonzero(aurocs[:, place] >= COVERED)
        if not covering.size:
            continue
        concept = spokesman(covering, aurocs[:, place], purity[:, place])
        rows[value] = {
            "concept": concept,
            "purity": float(purity[concept, place]),
            "delta": float(columns["delta"][concept]),
            "verdict": str(columns["verdict"][concept]),
            "any": sorted({str(v) for v in columns["verdict"][covering]}),
        }
    called = {
        kind: [value for value, row in rows.items() if row["verdict"] == kind]
        for kind in (verdicts.SUPPRESSED, verdicts.EXAGGERATED)
    }
    right = [value for value in called[verdicts.SUPPRESSED] if change[value] < 1]
    right += [value for value in called[verdicts.EXAGGERATED] if change[value] > 1]
    n_called = sum(map(len, called.values()))
    found = [v for v, kind in planted.items() if v in rows and rows[v]["verdict"] == kind]
    by_any = [v for v, kind in planted.items() if v in rows and kind in rows[v]["any"]]
    covered = [value for value in planted if value in rows]
    low = [v for v in rows if planted.get(v) == verdicts.SUPPRESSED]
    untouched = [value for value in rows if change[value] == 1]
    scores = [-rows[value]["delta"] for value in (*low, *untouched)]
    labels = [1] * len(low) + [0] * len(untouched)
    return {
        "rows": {" ".join(value): row for value, row in rows.items()},
        "n_called": n_called,
        "precision": len(right) / n_called if n_called else None,
        "untouched_called": sum(v in untouched for kind in called.values() for v in kind),
        "planted_found": len(found),
        "planted_found_by_any": len(by_any),
        "planted_covered": len(covered),
        "recall": len(found) / len(planted),
        "auroc": float(roc_auc_score(labels, scores)) if low and untouched else None,
    }


def name_findings(found: list[dict], aurocs: np.ndarray) -> list[dict]:
    """Findings with factor values in the place of concepts; "?" where none is covered."""

    def name(concept: int) -> str:
        place = int(aurocs[concept].argmax())
        return " ".join(VALUES[place]) if aurocs[concept, place] >= COVERED else "?"

    return [
        {
            "of": name(row["concepts"][0]),
            "concepts": len(row["concepts"]),
            "verdict": row["verdict"],
            "ratio": [float(np.exp(row[end])) for end in ("log_ratio", "low", "high")],
            "instead": [name(concept) for concept in row["instead"]],
            "asked": [row["asked_n"], float(np.exp(row["asked_log_ratio"]))],
        }
        for row in found
    ]


def copies(
    real: sp.csr_array,
    generated: sp.csr_array,
    psnr: np.ndarray,
    titled,
    pairs: pa.Table | None = None,
) -> dict:
    """How well scores tell the memorised pairs from the others; `pairs` as `compare` wrote them."""
    scores = score_pairs(real, generated)
    ranked = {
        "mean difference (paper)": -np.abs(scores["mean_difference"]),
        "absolute difference": -scores["absolute_difference"],
        "cosine": scores["cosine"],
    }
    if pairs is not None:
        ranked["patches (z)"] = pairs.sort_by("row_real")["z"].to_numpy()
    found = {"copied": int((psnr[titled] > COPY_PSNR).sum()), "titled": int(titled.sum()),
             "copied_others": int((psnr[~titled] > COPY_PSNR).sum()), "scores": {}}  # fmt: skip
    reproduced = titled & (psnr > COPY_PSNR)
    told = reproduced | ~titled  # what was not learned by heart cannot be told
    for name, score in ranked.items():
        first = np.argsort(-score, kind="stable")[: titled.sum()]
        found["scores"][name] = {
            "auroc": float(roc_auc_score(titled, score)),
            "auroc_reproduced": float(roc_auc_score(reproduced[told], score[told]))
            if reproduced.any()
            else None,
            "recall_at_n": float(titled[first].mean()),
            "curve": [part.tolist() for part in roc_curve(titled, score)[:2]],
        }
    return found


def pixels(workdir: pathlib.Path, n: int) -> np.ndarray:
    """Generated images [N, 64, 64, 3]."""
    records = list_generated(epath.Path(workdir) / "images" / "scenes").records
    assert len(records) == n
    return np.stack([np.asarray(Image.open(io.BytesIO(record.read()))) for record in records])


def probe(config, images: np.ndarray, factors: np.ndarray) -> dict:
    """Linear probes, trained on rendered scenes, tell what other images show."""
    encoder = inputs.load_encoder(config)
    step = jax.jit(lambda part: encoder.apply(encoder.params, part))

    def features(images):
        parts = [np.asarray(step(images[i : i + 50])) for i in range(0, len(images), 50)]
        tokens = np.concatenate(parts)
        return np.concatenate([tokens[:, 0], tokens.mean(axis=1)], axis=1)

    rendered = [scenes.plain(scenes.generator(20, i)) for i in range(2 * PROBE_IMAGES)]
    x = features(np.stack([scene.image for scene in rendered]))
    y = np.array([scene.factors for scene in rendered])
    found, shown = {}, features(images)
    change = expected_change()
    for column, (name, values) in enumerate(scenes.FACTORS.items()):
        model = LogisticRegression(C=0.1, max_iter=2000).fit(
            x[:PROBE_IMAGES], y[:PROBE_IMAGES, column]
        )
        said, asked = model.predict(shown), factors[:, column]
        spared = np.array([change[name, value] >= 1 or name == "background" for value in values])
        if name == "background":  # of those not replaced by the frequent one
            frequent = values.index(Planted.read().frequent_background)
            counted = (asked == frequent) | (said != frequent)
        else:
            counted = spared[asked]
        found[name] = {
            "rendered": float(model.score(x[PROBE_IMAGES:], y[PROBE_IMAGES:, column])),
            "generated": float((said == asked)[counted].mean()),
            "counted": int(counted.sum()),
            "shares": {
                value: [float((asked == i).mean()), float((said == i).mean())]
                for i, value in enumerate(values)
            },
        }
    return found


def draw(result: dict, path: pathlib.Path) -> None:
    """One figure: deltas of the covered factors, and the ROC of copies."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.5), width_ratios=(2, 1))
    size = str(max(map(int, result["verdicts"])))
    rows = result["verdicts"][size]["rows"]
    change = {" ".join(key): value for key, value in expected_change().items()}
    names = sorted(rows, key=lambda name: (change[name], name))
    colours = ["#5776b4" if change[n] < 1 else "#b16243" if change[n] > 1 else "0.6" for n in names]
    left.bar(range(len(names)), [rows[name]["delta"] - 0.5 for name in names], bottom=0.5,
             color=colours)  # fmt: skip
    for bound in (verdicts.PAPER_SUPPRESSED, verdicts.PAPER_EXAGGERATED):
        left.axhline(bound, color="0.3", lw=0.8, ls=":")
    labels = [f"{name.split(' ', 1)[1]} ({change[name]:.2g}x)" for name in names]
    left.set_xticks(range(len(names)), labels, rotation=90)
    left.set_ylabel("delta of the concept that stands for it")
    left.set_ylim(0, 1)
    left.set_title(f"taught change (x) and delta, {size} images")
    for name, score in result["copies"]["scores"].items():
        right.plot(*score["curve"], label=f"{name}: AUROC {score['auroc']:.3f}")
    right.set_xlabel("share of other pairs")
    right.set_ylabel("share of memorised pairs")
    right.set_title("telling copies")
    right.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=SIZES[-1])
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/planted"))
    arguments = parser.parse_args()
    quiet_libraries()
    n, workdir = arguments.images, arguments.workdir
    compared, nothing = run_stages(workdir, n)
    config = runpy.run_path(str(REPO / "configs" / "scenes.py"))["get_config"](f"limit={n}")
    real = read_codes(compared / "measures" / "real", n)
    generated = read_codes(compared / "measures" / "scenes", n)
    other = read_codes(nothing / "measures" / "generated", n)
    here = [scenes.scene(int(config.real.path), row) for row in range(n)]
    there = np.array([scenes.scene(int(OTHER_SEED), row).factors for row in range(n)])
    factors = np.array([scene.factors for scene in here])

    aurocs, purity = auroc_table(other, one_hot(there)), purity_table(other, one_hot(there))
    best = dict(zip(VALUES, aurocs.max(axis=0).tolist(), strict=True))
    purest = np.where(aurocs >= COVERED, purity, 0).max(axis=0)
    purest = dict(zip(VALUES, purest.tolist(), strict=True))
    result = {
        "images": n,
        "coverage": {" ".join(value): score for value, score in best.items()},
        "purity": {" ".join(value): score for value, score in purest.items()},
    }
    print(
        f"(a) covered at AUROC {COVERED}: {sum(s >= COVERED for s in best.values())} of 30;"
        f" by a concept with {PURE:.0%} of its energy on the value:"
        f" {sum(s >= PURE for s in purest.values())}; each with AUROC, share of energy"
    )
    for name, values in scenes.FACTORS.items():
        told = (f"{v} {best[name, v]:.3f}, {purest[name, v]:.2f}" for v in values)
        print(f"    {name}: {'; '.join(told)}")

    print("(b) images  called  precision  planted found  by any  recall  AUROC  untouched called")
    print_nothing, captions = [], [scene.caption for scene in here]
    twins = read_statistics(compared / "comparisons" / "scenes" / "statistics.npz").twins
    result["verdicts"], result["nothing"] = {}, {}
    for size in sorted({size for size in SIZES if size <= n} | {n}):
        few = clusters.within(twins, np.arange(size))
        labels = clusters.find_clusters(captions[:size], real[:size], twins=few)
        made = compare_codes(real[:size], generated[:size], Method(), captions[:size], labels)
        columns = {name: np.array(made.concepts[name].to_pylist()) for name in JUDGED}
        row = judge_factors(columns, aurocs, purity)
        row["counts"] = dict(made.manifest["counts"])
        row["findings"] = name_findings(made.findings.to_pylist(), aurocs)
        result["verdicts"][str(size)] = row
        found = f"{row['planted_found']} of {row['planted_covered']}"
        print(
            f"    {size:<6}  {row['n_called']:<6}  {_show(row['precision']):<9}"
            f"  {found:<13}  {row['planted_found_by_any']:<6}  {row['recall']:<6.2f}"
            f"  {_show(row['auroc']):<5}  {row['untouched_called']}"
        )
        none = compare_codes(real[:size], other[:size], Method(clusters="none")).manifest
        result["nothing"][str(size)] = {key: none[key] for key in ("counts", "control")}
        called = sum(none["counts"][kind] for kind in verdicts.CALLED)
        print_nothing.append(
            f"    {size:<6}  {called} of {none['control']['eligible']} called,"
            f" {none['counts']['less'] + none['counts']['more']} less or more"
        )
    print(f"    counts at {size}: {row['counts']}; control: {made.manifest['control']}")
    print(f"    {len(row['findings'])} findings, those with most evidence first:")
    for each in row["findings"]:
        ratio, low, high = each["ratio"]
        print(
            f"      {each['of']} {each['verdict']}, {each['concepts']} concepts:"
            f" {ratio:.3g} [{low:.3g}, {high:.3g}]; instead: {', '.join(each['instead']) or '-'};"
            f" asked for in {each['asked'][0]}: {each['asked'][1]:.3g}"
        )
    print("(c) real against other real scenes: images  concepts", *print_nothing, sep="\n")

    drawn = pixels(compared, n)
    truth = np.stack([scene.image for scene in here]).astype(np.float64)
    error = ((drawn - truth) ** 2).mean(axis=(1, 2, 3))
    psnr = 10 * np.log10(255**2 / np.maximum(error, 1e-9))
    titled = np.array([scene.caption.startswith(scenes.TITLES) for scene in here])
    pairs = pq.read_table(compared / "comparisons" / "scenes" / "datapoints.parquet")
    result["copies"] = copies(real, generated, psnr, titled, pairs)
    found = result["copies"]
    print(
        f"(d) {found['copied']} of {found['titled']} memorised scenes within {COPY_PSNR} dB"
        f" (others: {found['copied_others']})"
    )
    for name, score in found["scores"].items():
        print(f"    {name:<24} AUROC {score['auroc']:.4f}, of those reproduced "
              f"{_show(score['auroc_reproduced'], 4)}, "
              f"of the first {found['titled']} {score['recall_at_n']:.2f} memorised")  # fmt: skip

    result["probe"] = probe(config, drawn[~titled], factors[~titled])
    print("(e) as asked for (planted values left out)")
    for name, row in result["probe"].items():
        print(f"    {name:<10} {row['generated']:.3f} of {row['counted']} generated images, "
              f"{row['rendered']:.3f} of rendered ones")  # fmt: skip
    folder = workdir / "report"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "planted.json", result)
    draw(result, folder / "planted.png")
    print(json.dumps({"written": str(folder)}))


def _show(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
