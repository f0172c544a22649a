"""Two generated sets of a workdir, concept by concept: `bsjax compare --against=A`, `--gate=A`.

Reads comparisons/<A>/ and comparisons/<B>/; writes models/<A>/<B>/. Both must have been compared
with the same real images under the same SAE; pairs that one of them lacks are left out.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from bsjax.analysis import models as analysis
from bsjax.analysis.comparison import Method
from bsjax.core.artifacts import REAL, begin_stage, differing_keys, list_finished, read_manifest
from bsjax.core.errors import GateFailed, UserError, naming
from bsjax.core.paths import AnyPath
from bsjax.results.comparisons import read_stored
from bsjax.results.models import CONCEPTS, folder_of, read_moved, write_moved
from bsjax.stats import moves

SHOWN = 3  # concepts that a line names


def require_other(workdir: AnyPath, name: str, against: str) -> None:
    """Refuses a set to compare with that is not there.

    Raises:
      UserError: it is not compared with the real images yet, or it is the very same set.
    """
    folder = workdir / "comparisons"
    there = [found for found in list_finished(folder) if found != name]
    if against not in there:
        what = "the very set that is compared" if against == name else "no comparison of that name"
        mend = f"name one of {', '.join(there)}" if there else "compare another set first"
        raise UserError(f"{{against}}={against}: {folder} holds {what}; {mend}", "against")


def compare_models(
    workdir: AnyPath,
    against: str,
    name: str,
    method: Method,
    settings: Mapping[str, Any],
    overwrite: bool = False,
    *,
    is_gate: bool = False,
) -> None:
    """Compares a generated set B with another one, A, and prints what came out.

    Args:
      workdir: of both.
      against: A.
      name: B.
      method: of the comparison.
      settings: dotted keys of the config that decide it.
      overwrite: make it anew.
      is_gate: whether B must not be worse.

    Raises:
      GateFailed: it is: some concept moved away, or its pairs are less close to the real ones.
      UserError: the two sets cannot be compared.
    """
    require_other(workdir, name, against)
    (first, made_first), (second, made_second) = (
        read_stored(workdir / "comparisons" / each)[::2] for each in (against, name)
    )
    _check_same_real(workdir, against, name, made_first["parents"], made_second["parents"])
    folder = folder_of(workdir, against, name)
    parents = {
        f"comparisons/{each}": made["config_hash"]
        for each, made in ((against, made_first), (name, made_second))
    }
    manifest = begin_stage(
        folder, config=settings, parents=parents, overwrite=overwrite, stage="compare"
    )
    if manifest is None:
        with naming({"clusters": "--config.compare.clusters"}):
            moved = analysis.compare_models(first, second, (against, name), method)
        manifest = write_moved(
            folder, moved.concepts, {**moved.manifest, "config": settings}, parents
        )
    table = read_moved(folder, manifest)
    sys.stdout.write(f"{summarise(table, manifest)} All concepts: {folder / CONCEPTS}\n")
    if is_gate:
        sys.stdout.write(f"{judge(table, manifest)}\n")


def _check_same_real(
    workdir: AnyPath, against: str, name: str, first: Mapping, second: Mapping
) -> None:
    """Both must have been compared with one set of real images, measured in one way."""
    made = [read_manifest(workdir / "measures" / each, "measure") for each in (against, name)]
    if None not in made:  # else measures were removed to save space: the hash alone tells
        for part in ("config", "parents"):
            for key in differing_keys(*(each[part] for each in made)):
                if key not in ("set", "images"):
                    values = [each[part].get(key) for each in made]
                    raise UserError(
                        f"measures/{against} and measures/{name} differ in {key}: {values[0]} and"
                        f" {values[1]}; measure both with one config"
                    )
    real = f"measures/{REAL}"
    if first.get(real) != second.get(real):
        raise UserError(
            f"comparisons/{against} and comparisons/{name} are of other real images:"
            f" {first.get(real)} and {second.get(real)}; run `bsjax compare --overwrite` for both"
        )


def summarise(table: pa.Table, manifest: Mapping[str, Any]) -> str:
    """What came out, as one paragraph."""
    (a, b), counts = manifest["sets"].values(), manifest["counts"]
    near = manifest["closeness"]
    text = "".join(f"! {note}\n" for note in manifest["notes"])
    text += (
        f"{b} against {a}, {counts['pairs']} pairs in {counts['clusters']} clusters"
        f" ({counts['unpaired_a']} of {a} and {counts['unpaired_b']} of {b} left out): concepts"
        f" that changed by more than {manifest['config']['compare.margin']:g}-fold moved"
    )
    parts = []
    for word, meaning in ((moves.TOWARDS, " the real images"), (moves.AWAY, " from them"),
                          (moves.ELSEWHERE, "")):  # fmt: skip
        named = _named(table, word)
        parts.append(f" {counts[word]} {word}{meaning}{f' ({named})' if named else ''}")
    text += f"{','.join(parts)}. Closeness to the real images: {a} {_mean(near['a'])},"
    return text + f" {b} {_mean(near['b'])}, difference {_mean(near['difference'], '+')}."


def judge(table: pa.Table, manifest: Mapping[str, Any]) -> str:
    """A line that says that a set is not worse than the one it is held against.

    Worse is a set of which a concept moved away from the real images, or whose pairs are less close
    to theirs: the interval of the paired difference lies below 0.

    Raises:
      GateFailed: it is worse; the line says which concepts and by how much.
    """
    a, b = manifest["sets"].values()
    gap, n_away = manifest["closeness"]["difference"], manifest["counts"][moves.AWAY]
    faults = []
    if n_away:
        faults.append(
            f"{n_away} concept{'s' * (n_away > 1)} moved away from the real images"
            f" ({_named(table, moves.AWAY)})"
        )
    if gap["high"] is not None and gap["high"] < 0:
        faults.append(f"its pairs are less close to the real images, difference {_mean(gap, '+')}")
    if faults:
        raise GateFailed(f"gate failed: {b} is worse than {a}: {'; '.join(faults)}")
    return (
        f"gate passed: no concept of {b} moved away from the real images, and closeness differs"
        f" from that of {a} by {_mean(gap, '+')}"
    )


def _named(table: pa.Table, word: str) -> str:
    """The concepts of a move that changed most beyond doubt."""
    rows = [row for row in table.to_pylist() if row["moved"] == word]
    # The end of the interval that is nearer to no change.
    rows.sort(key=lambda row: -max(row["low"], -row["high"]))
    named = [
        f"{' '.join(filter(None, (str(row['concept']), row['words'])))}: {_fold(row)} times as"
        f" much; to real {_fold(row, '_a')} before, {_fold(row, '_b')} now"
        for row in rows[:SHOWN]
    ]
    return ", ".join(named + ["..."] * (len(rows) > SHOWN))


def _fold(row: Mapping[str, Any], arm: str = "") -> str:
    """A ratio with its interval, as a reader takes it."""
    point, *ends = (f"{np.exp(row[f'{name}{arm}']):.3g}" for name in ("log_ratio", "low", "high"))
    return f"{point} [{', '.join(ends)}]"


def _mean(found: Mapping[str, float | None], sign: str = "") -> str:
    """A mean with its interval; what is not known as a dash."""
    point, *ends = (
        "–" if found[name] is None else f"{found[name]:{sign}.3f}"
        for name in ("mean", "low", "high")
    )
    return f"{point} [{ends[0]}, {ends[1]}]"
