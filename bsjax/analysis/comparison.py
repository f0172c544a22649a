"""Two measured sets, or two matrices of image codes, -> every statistic of their comparison.

All statistics of a comparison are called here, whoever asks for one.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from bsjax.analysis import controls as beside
from bsjax.analysis import copies, pairs
from bsjax.analysis.attrition import account_again
from bsjax.analysis.findings import look_further
from bsjax.analysis.told import (
    CONTROL_FAILS,
    notes_on_pairing,
    tell,
    tell_pairing,
    warnings,
)
from bsjax.analysis.units import find_units
from bsjax.core.artifacts import REAL
from bsjax.core.errors import UserError
from bsjax.core.ranges import CLUSTERS, PAIRS, RANGES, told_gone
from bsjax.data.pairing import LOT, Pairing
from bsjax.results.columns import COMPARED_CONCEPTS, CONTROLLED
from bsjax.results.comparisons import Compared
from bsjax.results.measures import Measured
from bsjax.results.pairing import known_links, pair_measured
from bsjax.results.statistics import Statistics
from bsjax.stats import clusters, comparison, divergences, streaming, words
from bsjax.stats.control_shifts import Changed

TOP_IMAGES = 12  # whose captions tell a concept's words, where only image codes are known


@dataclasses.dataclass(frozen=True)
class Method:
    """How a comparison is made.

    Attributes:
      rules: of the verdicts.
      clusters: what makes pairs repetitions of one another: the same "caption", the same real
        "image", "auto" (either) or "none".
      pairs: "auto", by names or captions; "none": of different captions, by lot.
      seed: of the pair drawn from each cluster, of what is held back and of the control.
    """

    rules: comparison.Rules = comparison.Rules()
    clusters: str = "auto"
    seed: int = 0
    pairs: str = "auto"

    @property
    def settings(self) -> dict[str, Any]:
        """As a manifest has them."""
        chosen = {f"compare.{name}": value for name, value in self.rules._asdict().items()}
        chosen["compare.clusters"] = self.clusters
        if self.pairs != Method.pairs:
            chosen["compare.pairs"] = self.pairs
        return dict(sorted(chosen.items())) | {"seed": self.seed}


def make_method(rules: Mapping[str, Any]) -> Method:
    """A method from named values, as users give them.

    Args:
      rules: form ("relative" or "difference"), temperature (of delta; by default that of the
        reference: 0.4 or 0.8), margin, aligned, fdr, confirm, clusters, pairs, seed.

    Raises:
      UserError: no such rule, or a value that cannot be.
    """
    names = (*comparison.Rules._fields, "clusters", "pairs", "seed")
    for name, value in rules.items():
        if name not in names:
            gone = told_gone(f"compare.{name}").replace("compare.", "")
            expected = gone or f"no such rule; expected one of {', '.join(names)}"
            raise UserError(f"{name}={value!r}: {expected}")
        bounds = RANGES.get(f"compare.{name}") or RANGES.get(name)
        if bounds is not None and not bounds.holds(value):
            raise UserError(f"{{{name}}}={value!r}: expected {bounds}", name)
    chosen = dict(rules)
    form = chosen.get("form", comparison.Rules().form)
    mode, paired = chosen.pop("clusters", Method.clusters), chosen.pop("pairs", Method.pairs)
    for name, value, known in (
        ("form", form, divergences.FORMS),
        ("clusters", mode, CLUSTERS),
        ("pairs", paired, PAIRS),
    ):
        if value not in known:
            raise UserError(
                f"{{{name}}}={value!r}: expected one of {', '.join(known)}; set it to one", name
            )
    chosen.setdefault("temperature", divergences.REFERENCE_TEMPERATURE[form])
    seed = chosen.pop("seed", 0)
    numbers = {name: float(value) for name, value in chosen.items() if name != "form"}
    return Method(comparison.Rules(form=form, **numbers), mode, seed, paired)


def compare_sets(
    real: Measured,
    generated: Measured,
    method: Method,
    name: str = "generated",
    pairing: Pairing | None = None,
    controls: Mapping[str, Measured] = MappingProxyType({}),
) -> Compared:
    """Compares a generated set with the real one over the captions that both have.

    Args:
      real: the real images.
      generated: the generated ones, by the same encoder and SAE.
      method: of the comparison.
      name: of the generated set.
      pairing: rows that belong together; as the method says where it is not given.
      controls: the real images, changed, by kind; what these alone do is no verdict.

    Raises:
      UserError: fewer than two pairs, or a control that lacks many of them.
    """
    if pairing is None:
        pairing = pair_measured(real, generated, method.pairs, method.seed)
    if len(pairing.rows_real) < comparison.LEAST_UNITS:
        raise UserError(
            f"only one pair of a real and a generated image, of {len(real.keys)} and"
            f" {len(generated.keys)}; expected at least two: add captions, or raise {{limit}}",
            "limit",
        )
    codes = real.codes[pairing.rows_real], generated.codes[pairing.rows_generated]
    is_paired = pairing.by != LOT
    judged = copies.judge_pairs(real, generated, pairing) if is_paired else None
    captions = real.images["caption"].take(pairing.rows_real)
    tokens = None
    if real.tokens is not None and generated.tokens is not None:
        tokens = real.tokens[pairing.rows_real], generated.tokens[pairing.rows_generated]
    keys = pa.array(pairing.keys(real.keys), pa.string())
    # What patches say of two real images is surer than what their codes do.
    twins = None if judged is None else copies.rows_of(judged.duplicates, keys.to_pylist())
    links = known_links(real, pairing)
    changed, lacking = beside.pair_controls(
        controls, real.images["key"].take(pairing.rows_real).to_pylist()
    )
    outcome = _outcome(
        codes, method, captions.to_pylist(), pairing.labels, tokens, twins, changed, links
    )
    statistics = Statistics(
        *codes,
        keys=keys.to_pylist(),
        # Of pairs by lot the generated image has another one.
        captions=captions.to_pylist() if is_paired else None,
        words=_words(real, generated, pairing),
        fires=(real.concepts["fires"].to_numpy(), generated.concepts["fires"].to_numpy()),
        sums=outcome.sums,
        tokens=tokens,
        twins=twins,
        changed=changed,
        links=links if links.size else None,
    )
    unpaired = {REAL: pairing.unpaired_real, name: pairing.unpaired_generated}
    sets = {REAL: real, name: generated, **{each.name: each for each in controls.values()}}
    parents = {f"measures/{arm}": each.manifest["config_hash"] for arm, each in sets.items()}
    notes = notes_on_pairing(pairing, len(generated.keys))
    told = [*notes, *real.notes, *generated.notes, *lacking, *warnings(outcome)]
    table = pairs.pair_table(
        *(codes, pairing.rows_real, pairing.rows_generated, keys, captions, outcome.shares, judged)
    )
    return Compared(
        name=name,
        **_tables(outcome, statistics, method, is_paired=is_paired),
        pairs=table if is_paired else table.slice(0, 0),
        manifest=tell(method.settings, outcome, len(pairing.rows_real), unpaired, parents)
        | tell_pairing(pairing)
        | {"notes": list(dict.fromkeys(told))},
        real=real,
        generated=generated,
        statistics=statistics,
        duplicates=judged and judged.duplicates,
    )


def compare_codes(
    real: sp.csr_array,
    generated: sp.csr_array,
    method: Method,
    captions: Sequence[str] | None = None,
    labels: Sequence[Any] | None = None,
) -> Compared:
    """Compares n pairs of image codes [n, K] (rows agree), of whatever SAE they are.

    Args:
      real: rows are images.
      generated: rows are their counterparts.
      method: of the comparison.
      captions: one per pair: pairs of one caption are one cluster if `method` says so, and words
        of the concepts are found in them.
      labels: one per pair, of its cluster, in the place of what `method` says.

    Raises:
      UserError: fewer than two pairs or clusters.
    """
    n, n_concepts = real.shape
    if n < comparison.LEAST_UNITS:
        raise UserError(f"{n} pair: expected at least {comparison.LEAST_UNITS}; add some")
    outcome = _outcome((real, generated), method, captions, labels)
    told_by = [""] * n_concepts
    if captions is not None:
        top_rows = [streaming.top_by_energy(codes, TOP_IMAGES) for codes in (real, generated)]
        told_by = words.describe_concepts(captions, np.concatenate(top_rows, axis=1))
    rows, unknown = np.arange(n), np.full(n_concepts, -1)
    keys = pa.array([str(row) for row in rows], pa.string())
    statistics = Statistics(
        real,
        generated,
        keys=keys.to_pylist(),
        captions=None if captions is None else list(captions),
        words=told_by,
        fires=(unknown, unknown),
        sums=outcome.sums,
    )
    told = pa.array([""] * n if captions is None else list(captions), pa.string())
    unpaired: dict[str, Sequence[str]] = {REAL: (), "generated": ()}
    return Compared(
        name="generated",
        **_tables(outcome, statistics, method),
        pairs=pairs.pair_table(
            (real, generated),
            rows,
            rows,
            keys,
            told,
            outcome.shares,
            one_image=pairs.same_real(real, labels),
        ),
        manifest=tell(method.settings, outcome, n, unpaired, {}) | {"notes": warnings(outcome)},
        statistics=statistics,
    )


def compare_again(
    name: str,
    statistics: Statistics,
    pair_rows: pa.Table,
    manifest: Mapping[str, Any],
    method: Method,
    keys: Sequence[str] | None = None,
) -> Compared:
    """The same comparison by another method, or over some of the pairs, from its statistics.

    Args:
      name: of the generated set.
      statistics: of all pairs.
      pair_rows: table of all pairs, of which the closeness alone depends on the method.
      manifest: of the comparison.
      method: the other one.
      keys: of the pairs to compare; None: all.

    Raises:
      UserError: fewer than two of the keys are pairs' keys, or one cluster alone.
    """
    place = {key: row for row, key in enumerate(statistics.keys)}
    rows = np.arange(len(place))
    if keys is not None:
        rows = np.array([place[key] for key in dict.fromkeys(keys) if key in place], np.int64)
        if rows.size < comparison.LEAST_UNITS:
            raise UserError(
                f"{{subset}} names {rows.size} of the {len(place)} pairs that were compared;"
                f" expected at least {comparison.LEAST_UNITS} of their keys, such as"
                f" {statistics.keys[0]!r}",
                "subset",
            )
    captions = statistics.captions
    tokens = statistics.tokens
    outcome = _outcome(
        (statistics.real[rows], statistics.generated[rows]),
        method,
        None if captions is None else [captions[row] for row in rows],
        tokens=None if tokens is None else (tokens[0][rows], tokens[1][rows]),
        twins=clusters.within(statistics.twins, rows),
        changed=beside.take_pairs(statistics.changed, rows, [statistics.keys[r] for r in rows]),
        links=clusters.within(statistics.links, rows),
    )
    unpaired = manifest["unpaired"]
    made = tell(method.settings, outcome, int(rows.size), unpaired, manifest["parents"])
    told = manifest.get("pairing", {})
    made |= {"pairing": told} if told else {}
    is_paired = told.get("by") != LOT
    for part in ("unpaired_real", "unpaired_generated"):  # the lists may be cut short
        made["counts"][part] = manifest["counts"][part]
    kept = [note for note in manifest["notes"] if not note.startswith(CONTROL_FAILS)]
    tables = _tables(outcome, statistics, method, rows, is_paired)
    # Of some of the pairs it is not known which of the missing images belong to them.
    shows = statistics.shows if keys is None else None
    missing = manifest.get("attrition")
    made |= account_again(missing, shows, tables["findings"], method.rules.margin)
    return Compared(
        name=name,
        **tables,
        pairs=pairs.with_closeness(pair_rows, statistics, method.rules.aligned),
        manifest=made | {"notes": [*kept, *warnings(outcome)]},
        statistics=statistics,
    )


def _outcome(
    codes: comparison.PairedCodes,
    method: Method,
    captions: Sequence[str] | None,
    given: Sequence[Any] | np.ndarray | None = None,
    tokens: comparison.PairedCodes | None = None,
    twins: np.ndarray | None = None,
    changed: Mapping[str, Changed] = MappingProxyType({}),
    links: np.ndarray | None = None,
) -> comparison.Outcome:
    """The statistics of pairs, those that repeat one another being one unit."""
    labels, repeats = find_units(method.clusters, codes[0], captions, twins, given, links)
    n_units = int(labels.max(initial=-1)) + 1
    if method.rules.confirm and n_units < 2 * comparison.LEAST_UNITS:
        raise UserError(
            f"{{confirm}}={method.rules.confirm:g} splits {n_units} clusters of pairs; expected at"
            f" least {2 * comparison.LEAST_UNITS}: add captions, or set {{confirm}} to 0",
            "confirm",
        )
    return comparison.compare_codes(
        *codes,
        method.rules,
        labels=labels,
        repeats=repeats,
        tokens=tokens,
        seed=method.seed,
        changed=changed,
    )


def _tables(
    outcome: comparison.Outcome,
    statistics: Statistics,
    method: Method,
    rows: np.ndarray | None = None,
    is_paired: bool = True,
) -> dict[str, pa.Table | None]:
    """Tables of concepts, findings, substitutions and controls, of all pairs or of some rows."""
    rows = np.arange(len(statistics.keys)) if rows is None else rows
    captions = statistics.captions
    extra, found, replaced = look_further(
        (statistics.real[rows], statistics.generated[rows]),
        outcome,
        method.rules,
        None if captions is None else [captions[row] for row in rows],
        statistics.words,
        method.seed,
        is_paired,
    )
    n_concepts = statistics.real.shape[1]
    columns: dict[str, Any] = {"concept": np.arange(n_concepts, dtype=np.int32)}
    columns |= outcome.columns | extra | beside.columns_of(outcome) | {"words": statistics.words}
    unknown = pa.nulls(n_concepts, pa.int64())
    for arm, fires in zip(("real", "generated"), statistics.fires, strict=True):
        columns[f"fires_{arm}"] = pa.array(fires, pa.int64(), mask=fires < 0)
        of_pairs = columns.get(f"fires_pairs_{arm}")
        known = unknown if of_pairs is None else pa.array(of_pairs.astype(np.int64))
        columns[f"fires_pairs_{arm}"] = known
    known = (*COMPARED_CONCEPTS, *(CONTROLLED if outcome.shifts else ()))
    concepts = pa.table({column.name: columns[column.name] for column in known})
    controls = beside.table_of(outcome)
    return dict(concepts=concepts, findings=found, substitutions=replaced, controls=controls)


def _words(real: Measured, generated: Measured, pairing: Pairing) -> list[str]:
    """Caption words of each concept from its top images in both arms."""
    if pairing.by == LOT:
        return words.describe_concepts(real.captions, real.top_rows)
    # A generated image speaks through the caption that it was made from; the last entry is for
    # the row -1, which stands for no image.
    to_real = np.full(generated.images.num_rows + 1, -1)
    to_real[pairing.rows_generated] = pairing.rows_real
    top_rows = np.concatenate([real.top_rows, to_real[generated.top_rows]], axis=1)
    return words.describe_concepts(real.captions, top_rows)
