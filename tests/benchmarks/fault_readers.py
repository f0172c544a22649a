"""faults.py: what the stages that read an artifact make of it, as a digest of all they take in."""

import pathlib

import numpy as np
from fault_table import digest

from bsjax.core.artifacts import check_files, require_manifest


def read_images(config, workdir: pathlib.Path) -> str:
    from bsjax.experiment import inputs

    arm = inputs.load_arms(config, workdir)[1]
    return digest(
        arm.digest, arm.notes, *((r.key, r.caption, r.read()) for r in arm.images.records)
    )


def read_measures(config, workdir: pathlib.Path) -> str:
    from bsjax.report.tables import read_comparisons
    from bsjax.stages import compare

    parts = []
    for name in ("real", "scenes"):
        folder = workdir / "measures" / name
        manifest = require_manifest(folder, "measure")
        measured = compare._read(folder, manifest)
        parts += [manifest["counts"], manifest["notes"], manifest["bad_images"]]
        parts += [measured.concepts.to_pydict(), measured.images.to_pydict(), measured.top_rows]
        parts += [measured.codes.data, measured.codes.indices, measured.codes.indptr]
        parts += [*measured.patches, measured.tokens.data, measured.tokens.indices]
    comparison = read_comparisons(workdir, ["scenes"])[0]
    for arm in (comparison.real, comparison.generated):
        parts += [arm.maps, arm.special, arm.cooccurrence.data, arm.paths, arm.resize, arm.crop]
    return digest(*parts)


def read_comparison(config, workdir: pathlib.Path) -> str:
    from bsjax.report.tables import read_comparisons
    from bsjax.results.comparisons import read_compared
    from bsjax.stages.run import summarise

    found = read_comparisons(workdir, ["scenes"])[0]
    text = summarise(workdir, "scenes").replace(str(workdir), "")
    more = found.duplicates, found.findings, found.substitutions
    controls = read_compared(workdir, "scenes").controls.to_pydict()
    return digest(found.columns, found.datapoints, found.manifest, text, *more, controls)


def read_statistics(config, workdir: pathlib.Path) -> str:
    """What `compare --from-statistics`, `power` and the report's correlations are made from."""
    from bsjax.results.comparisons import read_stored

    statistics, pairs, manifest = read_stored(workdir / "comparisons" / "scenes")
    parts = [pairs.to_pydict(), manifest, statistics.keys, statistics.captions, statistics.words]
    parts += [*statistics.fires, *statistics.sums, statistics.twins]
    codes = [statistics.real, statistics.generated, *statistics.tokens]
    for each in statistics.changed.values():
        codes, parts = [*codes, each.codes], [*parts, each.is_known]
    for matrix in codes:
        parts += [matrix.data, matrix.indices, matrix.indptr]
    return digest(*parts)


def read_moved(config, workdir: pathlib.Path) -> str:
    """What `compare --against` and `--gate` say of a finished comparison of two sets."""
    from bsjax.results import models
    from bsjax.stages.compare_models import summarise

    folder = models.folder_of(workdir, "scenes", "more")
    manifest = require_manifest(folder, "compare")
    table = models.read_moved(folder, manifest)
    return digest(table.to_pydict(), summarise(table, manifest))


def read_replication(config, workdir: pathlib.Path) -> str:
    from bsjax.results.replications import read_replication

    (folder,) = (workdir / "replications" / "scenes").iterdir()
    found = read_replication(folder)
    return digest(found.concepts.to_pydict(), found.manifest, str(found))


def read_layout(config, workdir: pathlib.Path) -> str:
    from bsjax.convert.rasae import load_rasae
    from bsjax.report import layout

    sae = load_rasae(config.sae.weights)
    path = workdir / "report" / layout.FILE
    whole = (workdir / "layout.whole").read_bytes()
    made = layout.umap_places
    # What is made anew is what was made before: the same seed.
    layout.umap_places = lambda _: np.load(workdir / "layout.whole")["places"]
    try:
        return digest(layout.place_concepts(workdir / "report", sae.dictionary, sae.digest))
    finally:
        layout.umap_places = made
        path.write_bytes(whole)


def read_sae(training, encoder, workdir: pathlib.Path) -> str:
    from bsjax.experiment import inputs

    loaded, threshold = inputs.load_sae(training, workdir, encoder)
    return digest(loaded.encoder, loaded.dictionary, threshold)


def read_training(workdir: pathlib.Path) -> str:
    from bsjax.stages import convert

    convert.export_sae(workdir)
    exported = workdir / "sae" / "overcomplete.safetensors"
    content = exported.read_bytes()
    exported.unlink()
    return digest(content)


def read_rest(folder: pathlib.Path, stage: str) -> str:
    """What no stage reads, but a person might: by the manifest alone."""
    check_files(folder, require_manifest(folder, stage))
    return ""


def read_tokens(training, workdir: pathlib.Path) -> str:
    from bsjax.data.token_store import BLOCK, TokenStore

    store = TokenStore(training.train.token_store)
    return digest(store.width, store.read_blocks(range(store.n_tokens // BLOCK)))


def read_arms(config, workdir: pathlib.Path) -> str:
    from bsjax.stages import compare

    parts = []
    for name in ("real", "scenes"):
        folder = workdir / "measures" / name
        measured = compare._read(folder, require_manifest(folder, "measure"))
        parts += [measured.concepts.to_pydict(), measured.images.to_pydict(), measured.top_rows]
        parts += [measured.codes.data, measured.codes.indices]
    return digest(*parts)
