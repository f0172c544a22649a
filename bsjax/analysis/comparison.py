"""Two measured sets, or two matrices of image codes, -> every statistic of their comparison.

All statistics of a comparison are called here, whoever asks for one.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from bsjax.analysis import copies
from bsjax.core.artifacts import REAL
from bsjax.core.errors import UserError
from bsjax.core.ranges import RANGES
from bsjax.core.rng import stage_key
from bsjax.data.captions import Pairing, pair_keys
from bsjax.results.columns import COMPARED_CONCEPTS
from bsjax.results.comparisons import Compared
from bsjax.results.measures import Measured
from bsjax.stats import comparison, datapoints, divergences, streaming, uncertainty, verdicts, words

LEAST_PAIRS = 2
TOP_IMAGES = 12  # whose captions tell a concept's words, where only image codes are known
MOST_UNPAIRED = 1000  # keys that a manifest lists

# Image codes [n, K] of the real and of the generated image of each pair; rows agree.
PairedCodes = tuple[sp.csr_array, sp.csr_array]


@dataclasses.dataclass(frozen=True)
class Method:
    """How a comparison is made.

    Attributes:
      rules: of the verdicts.
      bootstrap: resamples for intervals of the relative form; 0: delta method.
      seed: of resamples, and of the halves of the control.
    """

    rules: comparison.Rules = comparison.Rules()
    bootstrap: int = 0
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """As a manifest has them."""
        chosen = {f"compare.{name}": value for name, value in self.rules._asdict().items()}
        chosen["compare.bootstrap"] = self.bootstrap
        return dict(sorted(chosen.items())) | {"seed": self.seed}


def make_method(rules: Mapping[str, Any]) -> Method:
    """A method from named values, as users give them.

    Args:
      rules: form ("relative" or "difference"), temperature (of delta; by default that of the
        reference: 0.4 or 0.8), suppressed, exaggerated, fdr, min_images, bootstrap, seed.

    Raises:
      UserError: no such rule, or a value that cannot be.
    """
    names = (*comparison.Rules._fields, "bootstrap", "seed")
    for name, value in rules.items():
        if name not in names:
            raise UserError(f"{name}={value!r}: no such rule; expected one of {', '.join(names)}")
        bounds = RANGES.get(f"compare.{name}") or RANGES.get(name)
        if bounds is not None and not bounds.holds(value):
            raise UserError(f"{{{name}}}={value!r}: expected {bounds}", name)
    chosen = dict(rules)
    form = chosen.get("form", comparison.Rules().form)
    if form not in divergences.FORMS:
        raise UserError(
            f"{{form}}={form!r}: expected one of {', '.join(divergences.FORMS)}; set it to one",
            "form",
        )
    chosen.setdefault("temperature", divergences.REFERENCE_TEMPERATURE[form])
    bootstrap, seed = chosen.pop("bootstrap", 0), chosen.pop("seed", 0)
    made = comparison.Rules(**chosen)
    if not made.suppressed < made.exaggerated:
        raise UserError(
            f"{{suppressed}}={made.suppressed}: expected less than"
            f" {{exaggerated}}={made.exaggerated}; set one of them",
            "suppressed",
            "exaggerated",
        )
    return Method(made, bootstrap, seed)


def compare_sets(
    real: Measured,
    generated: Measured,
    method: Method,
    name: str = "generated",
    pairing: Pairing | None = None,
) -> Compared:
    """Compares a generated set with the real one over the captions that both have.

    Args:
      real: the real images.
      generated: the generated ones, by the same encoder and SAE.
      method: of the comparison.
      name: of the generated set.
      pairing: rows that belong together; by key where it is not given.

    Raises:
      UserError: fewer than two pairs.
    """
    if pairing is None:
        pairing = pair_keys(real.keys, generated.keys)
    if len(pairing.rows_real) < LEAST_PAIRS:
        raise UserError(
            f"only one pair of a real and a generated image, of {len(real.keys)} and"
            f" {len(generated.keys)}; expected at least two: add captions, or raise {{limit}}",
            "limit",
        )
    codes = real.codes[pairing.rows_real], generated.codes[pairing.rows_generated]
    judged = copies.judge_pairs(real, generated, pairing)
    columns = _statistics(codes, method)
    columns["fires_real"] = real.concepts["fires"].to_numpy()
    columns["fires_generated"] = generated.concepts["fires"].to_numpy()
    columns["words"] = _words(real, generated, pairing)
    unpaired = {REAL: pairing.unpaired_real, name: pairing.unpaired_generated}
    counts = {
        "pairs": len(pairing.rows_real),
        "unpaired_real": len(pairing.unpaired_real),
        "unpaired_generated": len(pairing.unpaired_generated),
    }
    return Compared(
        name=name,
        concepts=_concept_table(columns),
        pairs=_pair_table(
            codes,
            pairing.rows_real,
            pairing.rows_generated,
            real.images["key"].take(pairing.rows_real),
            real.images["caption"].take(pairing.rows_real),
            judged,
        ),
        manifest={
            "config": method.settings,
            "parents": {
                f"measures/{arm}": measured.manifest["config_hash"]
                for arm, measured in ((REAL, real), (name, generated))
            },
            "counts": counts | _count_verdicts(columns["verdict"]),
            "notes": list(dict.fromkeys([*real.notes, *generated.notes])),
            "control": control_run(codes[0], method.rules, method.seed),
            "unpaired": {arm: keys[:MOST_UNPAIRED] for arm, keys in unpaired.items()},
        },
        real=real,
        generated=generated,
        duplicates=judged and judged.duplicates,
    )


def compare_codes(
    real: sp.csr_array,
    generated: sp.csr_array,
    method: Method,
    captions: Sequence[str] | None = None,
    clusters: Sequence[Any] | None = None,
) -> Compared:
    """Compares n pairs of image codes [n, K] (rows agree), of whatever SAE they are.

    Args:
      real: rows are images.
      generated: rows are their counterparts.
      method: of the comparison.
      captions: one a pair, for the table of pairs and for words of the concepts.
      clusters: one label a pair. Energies are averaged over the pairs of a cluster before concepts
        are compared, so that what comes several times counts once. The table of pairs has all.

    Raises:
      UserError: fewer than two pairs or clusters.
    """
    n, n_concepts = real.shape
    averaged = (real, generated)
    if clusters is not None:
        averages = _averages(clusters)
        averaged = (averages @ real, averages @ generated)
    n_units = averaged[0].shape[0]
    if n_units < LEAST_PAIRS:
        what = "pair" if clusters is None else "cluster of pairs"
        raise UserError(f"{n_units} {what}: expected at least {LEAST_PAIRS}; add some")
    columns = _statistics(averaged, method)
    nothing = pa.nulls(n_concepts, pa.int64())
    columns |= {"fires_real": nothing, "fires_generated": nothing, "words": [""] * n_concepts}
    if captions is not None:
        top_rows = [streaming.top_by_energy(codes, TOP_IMAGES) for codes in (real, generated)]
        columns["words"] = words.describe_concepts(captions, np.concatenate(top_rows, axis=1))
    rows = np.arange(n)
    counts = {"pairs": n_units, "unpaired_real": 0, "unpaired_generated": 0}
    keys = pa.array([str(row) for row in rows], pa.string())
    told = pa.array([""] * n if captions is None else list(captions), pa.string())
    return Compared(
        name="generated",
        concepts=_concept_table(columns),
        pairs=_pair_table(
            (real, generated), rows, rows, keys, told, same_real=_same_real(real, clusters)
        ),
        manifest={
            "config": method.settings,
            "parents": {},
            "counts": counts | _count_verdicts(columns["verdict"]),
            "notes": [],
            "control": control_run(averaged[0], method.rules, method.seed),
            "unpaired": {REAL: (), "generated": ()},
        },
    )


def control_run(real: sp.csr_array, rules: comparison.Rules, seed: int) -> dict[str, int]:
    """What would be called where nothing differs: one half of the real images against the other.

    Args:
      real: image codes [n, K], divided by chance.
      rules: of the verdicts.
      seed: of the division.

    Returns:
      pairs, and of the concepts those with enough data (eligible) and those called.
    """
    order = np.random.default_rng(seed).permutation(real.shape[0])
    n_pairs = real.shape[0] // 2
    counts = {"pairs": n_pairs, "eligible": 0, "called": 0}
    if n_pairs >= LEAST_PAIRS:
        halves = (real[order[part * n_pairs :][:n_pairs]] for part in range(2))
        counts |= verdicts.count_called(comparison.compare_codes(*halves, rules)["verdict"])
    return counts


def _statistics(codes: PairedCodes, method: Method) -> dict[str, Any]:
    weights = None
    if method.bootstrap:
        key = stage_key(method.seed, "compare/bootstrap")
        weights = uncertainty.bootstrap_weights(key, method.bootstrap, codes[0].shape[0])
    return comparison.compare_codes(*codes, method.rules, weights)


def _averages(clusters: Sequence[Any]) -> sp.csr_array:
    """[clusters, n]: each row averages the pairs of a cluster, in the order of first mention."""
    places: dict[Any, int] = {}
    labels = np.array([places.setdefault(label, len(places)) for label in clusters])
    weights = 1.0 / np.bincount(labels)[labels]
    shape = (len(places), len(labels))
    return sp.csr_array((weights, (labels, np.arange(len(labels)))), shape=shape)


def _concept_table(columns: Mapping[str, Any]) -> pa.Table:
    n_concepts = len(columns["delta"])
    numbered = {**columns, "concept": np.arange(n_concepts, dtype=np.int32)}
    return pa.table({column.name: numbered[column.name] for column in COMPARED_CONCEPTS})


def _count_verdicts(verdict: np.ndarray) -> dict[str, int]:
    return {kind.replace(" ", "_"): int((verdict == kind).sum()) for kind in verdicts.KINDS}


def _words(real: Measured, generated: Measured, pairing: Pairing) -> list[str]:
    """Caption words of each concept from its top images in both arms."""
    # A generated image speaks through the caption that it was made from; the last entry is for
    # the row -1, which stands for no image.
    to_real = np.full(generated.images.num_rows + 1, -1)
    to_real[pairing.rows_generated] = pairing.rows_real
    top_rows = np.concatenate([real.top_rows, to_real[generated.top_rows]], axis=1)
    return words.describe_concepts(real.captions, top_rows)


def _same_real(codes: sp.csr_array, clusters: Sequence[Any] | None) -> np.ndarray:
    """[n] labels of pairs: the same where cluster and real image are, as their codes tell."""
    places: dict[Any, int] = {}
    labels = []
    for row in range(codes.shape[0]):
        part = slice(codes.indptr[row], codes.indptr[row + 1])
        told = (codes.indices[part].tobytes(), codes.data[part].tobytes())
        label = row if clusters is None else (clusters[row], *told)
        labels.append(places.setdefault(label, len(places)))
    return np.array(labels, np.int64)


def _pair_table(
    codes: PairedCodes,
    rows_real: np.ndarray,
    rows_generated: np.ndarray,
    keys: pa.ChunkedArray | pa.Array,
    captions: pa.ChunkedArray | pa.Array,
    judged: copies.Judged | None = None,
    same_real: np.ndarray | None = None,
) -> pa.Table:
    """The pairs in their order; of several that share a real image the most alike alone."""
    scores = datapoints.score_pairs(*codes)
    if judged is not None:
        scores |= judged.scores
    order = datapoints.rank_pairs(scores)
    order = datapoints.first_of_each(order, rows_real if same_real is None else same_real)
    scores["n_firing"] = datapoints.count_firing(*codes)
    columns = {
        "rank": np.arange(1, len(order) + 1, dtype=np.int32),
        "key": keys.take(order),
        "caption": captions.take(order),
        "row_real": rows_real[order].astype(np.int32),
        "row_generated": rows_generated[order].astype(np.int32),
        **{name: values[order] for name, values in scores.items()},
    }
    return copies.pair_table(columns)
