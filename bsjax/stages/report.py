"""report: measures and comparisons -> report/index.html, figures and tables.

Reads every comparison in the workdir, the dictionary for the map, and what others made with the
same SAE (imported/*__enriched.json); always written anew, the map aside.
"""

import pathlib

import ml_collections
import numpy as np
from absl import logging

from bsjax.convert.rasae import TRAINED, load_rasae
from bsjax.core.artifacts import MANIFEST, REAL, read_manifest, write_json
from bsjax.core.errors import UserError
from bsjax.core.logs import step
from bsjax.data.images import thumbnail
from bsjax.report.card import run_card
from bsjax.report.exchange import imported, write_enriched
from bsjax.report.explorer.site import write_site
from bsjax.report.figures import CAPTIONS
from bsjax.report.layout import place_concepts
from bsjax.report.model_figures import SHEET_CONCEPTS, draw_models, draw_sheet
from bsjax.report.names import read_names
from bsjax.report.page import write_summary
from bsjax.report.tables import Comparison, rank, read_comparisons

IMPORTED = "imported"  # folder of the workdir with files of the reference's explorer


def report(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Writes the report over all finished comparisons of the workdir."""
    workdir = pathlib.Path(workdir)
    sets = sorted(path.parent.name for path in (workdir / "comparisons").glob(f"*/{MANIFEST}"))
    if not sets:
        raise UserError(f"{workdir / 'comparisons'} holds no comparison; run `bsjax compare` first")
    comparisons = read_comparisons(workdir, sets)
    folder = workdir / "report"
    places = _places(config, workdir, comparisons[0])
    write_summary(folder, comparisons, places, thumbnail)
    cards = [run_card(workdir, comparison) for comparison in comparisons]
    for comparison, card in zip(comparisons, cards, strict=True):
        write_json(folder / f"{comparison.name}__card.json", card)
        write_enriched(folder, comparison, places)
    measured = read_manifest(workdir / "measures" / REAL) or {}
    sae = measured.get("parents", {}).get("sae", "")
    names = read_names(folder, [str(words) for words in comparisons[0].columns["words"]], sae)
    with step("drawing the figures"):
        figures = _figures(folder / "figures", comparisons)
    for foreign in sorted((workdir / IMPORTED).glob("*.json")):
        comparison = imported(foreign)
        if len(comparison.columns["concept"]) != len(names):
            raise UserError(
                f"{foreign} has {len(comparison.columns['concept'])} concepts, the comparisons here"
                f" {len(names)}; import results of the same SAE"
            )
        comparisons.append(comparison)
        cards.append({"source": f"imported from {foreign.name}"})
    with step("writing the pages of the report"):
        path = write_site(folder, comparisons, places, names, cards, figures, thumbnail)
    logging.info("report: %s", path)


def _figures(folder: pathlib.Path, comparisons: list[Comparison]) -> list[tuple[str, str]]:
    """Draws what the summary has not; file stem and text of all figures, in reading order."""
    figures = []
    for comparison in comparisons:
        name = comparison.name
        figures += [(f"{name}_{figure}", f"{name}: {text}") for figure, text in CAPTIONS.items()]
        for ranking in rank(comparison, SHEET_CONCEPTS):
            sheet = draw_sheet(folder, comparison, ranking, thumbnail)
            figures += [] if sheet is None else [sheet]
    return figures + list(draw_models(folder, comparisons).items())


def _places(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, comparison: Comparison
) -> np.ndarray:
    """The map of the dictionary; by fires and energy where the SAE is not at hand."""
    weights = config.sae.weights or str(workdir / "sae" / TRAINED)
    try:
        sae = load_rasae(weights)
    except UserError as error:
        logging.warning("no map of the dictionary, concepts lie by fires and energy: %s", error)
        columns = comparison.columns
        axes = columns["fires_real"], columns["energy_real"]
        return np.log1p(np.stack(axes, axis=1)).astype(np.float32)
    with step(f"map of {sae.n_concepts} concepts (UMAP)"):
        return place_concepts(workdir / "report", sae.dictionary, sae.digest)
