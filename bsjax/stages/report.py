"""report: measures and comparisons -> report/index.html, figures and tables.

Reads every comparison in the workdir, the dictionary for the map, and what others made with the
same SAE (imported/*__enriched.json); always written anew, the map aside.
"""

import pathlib

import ml_collections
import numpy as np
from absl import logging

from bsjax.analysis.models import correlate_all
from bsjax.convert.rasae import TRAINED, load_rasae
from bsjax.core import checksums
from bsjax.core.artifacts import (
    REAL,
    check_files,
    list_finished,
    read_manifest,
    write_json,
    write_manifest,
)
from bsjax.core.errors import UserError
from bsjax.core.logs import step
from bsjax.core.paths import AnyPath
from bsjax.data.images import thumbnail
from bsjax.report.card import run_card
from bsjax.report.correlations import Matrix
from bsjax.report.exchange import read_imported, write_enriched
from bsjax.report.explorer.moves import read_all_moved
from bsjax.report.explorer.site import write_site, write_thumbnails
from bsjax.report.explorer.stress import stress_payload
from bsjax.report.figures import caption, drawn_of
from bsjax.report.layout import BY_AMOUNT, BY_DICTIONARY, place_by_amount, place_concepts
from bsjax.report.model_figures import SHEET_CONCEPTS, draw_models, draw_sheet
from bsjax.report.names import look_at_names, read_names
from bsjax.report.page import write_summary
from bsjax.report.said import write_csv
from bsjax.report.tables import Comparison, Measured, rank, read_comparisons
from bsjax.results.models import read_all_statistics, write_matrix


def report(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
    """Writes the report over all finished comparisons of the workdir.

    Raises:
      UserError: no comparison, or a file that the report reads is not what its stage wrote.
    """
    workdir = pathlib.Path(workdir)
    sets = list_sets(workdir)
    comparisons = read_comparisons(workdir, sets)
    for name in sets:
        _check_pictures(workdir / "images" / name)
    folder = workdir / "report"
    n_concepts = len(comparisons[0].columns["concept"])
    measured = read_manifest(workdir / "measures" / REAL) or {}
    sae = measured.get("parents", {}).get("sae", "")
    look_at_names(folder, n_concepts, sae)
    before = _stamps(folder)
    foreign = read_imported(workdir, n_concepts)
    unreadable = write_thumbnails(folder, [*comparisons, *foreign.values()], thumbnail)
    comparisons = [
        _tell_unreadable(comparison, unreadable[0], n)
        for comparison, n in zip(comparisons, unreadable[1:], strict=False)
    ]
    places, places_are = _places(config, workdir, comparisons[0])
    moved = read_all_moved(workdir, comparisons)
    with step("correlating the models"):
        matrix = correlate_all(read_all_statistics(workdir, sets) if len(sets) > 1 else {})
    write_matrix(folder, matrix)
    style = config.report.style
    write_summary(
        folder, comparisons, places, thumbnail, matrix=matrix, style=style, places_are=places_are
    )
    cards = [
        run_card(workdir, comparison, (unreadable[0], n))
        for comparison, n in zip(comparisons, unreadable[1:], strict=False)
    ]
    for comparison, card in zip(comparisons, cards, strict=True):
        write_json(folder / f"{comparison.name}__card.json", card)
        write_enriched(folder, comparison, places)
    names = read_names(folder, [str(words) for words in comparisons[0].columns["words"]], sae)
    write_csv(folder / "findings.csv", {c.name: c.told for c in comparisons}, names)
    with step("drawing the figures"):
        figures = _figures(folder / "figures", comparisons, matrix, style, places_are)
    cards += [{"source": f"imported from {name}"} for name in foreign]
    with step("writing the pages of the report"):
        path = write_site(
            folder, [*comparisons, *foreign.values()], places, names, cards, figures, thumbnail,
            has_thumbnails=True, matrix=matrix,
            moved=moved, places_are=places_are,
            stress={c.name: stress_payload(workdir, c, thumbnail) for c in comparisons},
        )  # fmt: skip
    _remove_stale(folder, before)
    n_pictures = sum(len(arm.paths) for arm in _arms(comparisons))
    write_manifest(
        folder,
        stage="report",
        config={},
        parents={f"comparisons/{c.name}": c.manifest["config_hash"] for c in comparisons}
        | {f"models/{a}/{b}": each.manifest["config_hash"] for (a, b), each in moved.items()},
        counts={"pictures": n_pictures, "unreadable": sum(unreadable[: len(sets) + 1])},
    )
    logging.info("report: %s", path)


def list_sets(workdir: AnyPath) -> list[str]:
    """Names of the sets with a finished comparison, without those whose measures were removed.

    Raises:
      UserError: there is none.
    """
    folder = workdir / "comparisons"
    sets = []
    for name in list_finished(folder):
        if (workdir / "measures" / name).is_dir():
            sets.append(name)
        else:
            logging.warning(
                "%s is left out: its measures were removed from the workdir", folder / name
            )
    if not sets:
        raise UserError(f"{folder} holds no comparison; run `bsjax compare` first")
    return sets


def _check_pictures(folder: pathlib.Path) -> None:
    """Refuses a generated set whose files are not those that were measured.

    A set that was removed to save space is none: its pictures cannot be read, and are counted.
    """
    manifest = read_manifest(folder, "generate")
    if manifest is not None:
        check_files(folder, manifest)


def _arms(comparisons: list[Comparison]) -> list[Measured]:
    return [comparisons[0].real, *(comparison.generated for comparison in comparisons)]


def _tell_unreadable(comparison: Comparison, n_real: int, n_generated: int) -> Comparison:
    """Adds to a comparison's notes how many pictures are missing, if any."""
    n_all = len(comparison.real.paths) + len(comparison.generated.paths)
    if not n_real + n_generated:
        return comparison
    note = (
        f"{n_real + n_generated} of {n_all} pictures could not be read ({n_real} real,"
        f" {n_generated} of {comparison.name}): their files are gone, moved or damaged. The numbers"
        " do not depend on them."
    )
    logging.warning("%s", note)
    manifest = comparison.manifest | {"notes": [*comparison.manifest["notes"], note]}
    return comparison._replace(manifest=manifest)


def _stamps(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """What tells whether a file of the report has been written since."""
    found = {}
    for name in checksums.list_files(folder):
        stat = (folder / name).stat()
        found[name] = (stat.st_ino, stat.st_mtime_ns)
    return found


def _remove_stale(folder: pathlib.Path, before: dict[str, tuple[int, int]]) -> None:
    """Removes what an earlier report wrote and this one did not: of sets that are gone."""
    for name, stamp in _stamps(folder).items():
        is_ours = name.startswith(("data/", "figures/")) or (
            "/" not in name and name.endswith(("__card.json", "__enriched.json"))
        )
        if is_ours and before.get(name) == stamp:
            (folder / name).unlink()


def _figures(
    folder: pathlib.Path, comparisons: list[Comparison], matrix: Matrix, style: str, places_are: str
) -> list[tuple[str, str, str]]:
    """Draws what the summary has not; (file stem, text, style) of all, in reading order."""
    figures = []
    for comparison in comparisons:
        name = comparison.name
        drawn = drawn_of(comparison)
        figures += [(f"{name}_{each}", f"{name}: {caption(each, places_are)}") for each in drawn]
        for ranking in rank(comparison, SHEET_CONCEPTS):
            sheet = draw_sheet(folder, comparison, ranking, thumbnail, style)
            figures += [] if sheet is None else [sheet]
    figures += draw_models(folder, comparisons, matrix, style).items()
    return [(stem, text, style) for stem, text in figures]


def _places(
    config: ml_collections.ConfigDict, workdir: AnyPath, comparison: Comparison
) -> tuple[np.ndarray, str]:
    """The map of the dictionary, by fires and energy where the SAE is not at hand; and which."""
    weights = config.sae.weights or str(workdir / "sae" / TRAINED)
    try:
        sae = load_rasae(weights)
    except UserError as error:
        logging.warning("no map of the dictionary, concepts lie by fires and energy: %s", error)
        columns = comparison.columns
        return place_by_amount(columns["fires_real"], columns["energy_real"]), BY_AMOUNT
    with step(f"map of {sae.n_concepts} concepts (UMAP)"):
        return place_concepts(workdir / "report", sae.dictionary, sae.digest), BY_DICTIONARY
