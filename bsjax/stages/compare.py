"""compare: statistics of two arms -> divergences, their uncertainty, verdicts, ranked pairs.

Reads measures/real/, measures/<set>/ and the controls beside them (`bsjax.experiment.controls`);
writes comparisons/<set>/, and with another generated set to compare with models/<A>/<B>/
(`bsjax.stages.compare_models`). Everything is computed over the
captions for which both arms have a usable image.
"""

import dataclasses
import pathlib

import ml_collections
from absl import logging

from bsjax import pipeline
from bsjax.analysis.attrition import account
from bsjax.analysis.comparison import Method, compare_again, compare_sets
from bsjax.analysis.models import correlate_all
from bsjax.core.artifacts import REAL, begin_stage, read_manifest, require_manifest
from bsjax.core.config import select
from bsjax.core.errors import UserError, naming
from bsjax.core.paths import AnyPath
from bsjax.core.text import read_text
from bsjax.data.pairing import LOT
from bsjax.experiment import controls, pairs
from bsjax.experiment.inputs import generated_name
from bsjax.experiment.stored import EXPERIMENT
from bsjax.results.comparisons import (
    keeping_pairs,
    read_stored,
    restore_pairs,
    write_compared,
)
from bsjax.results.ingested import read_lost
from bsjax.results.measures import (
    CONCEPTS,
    IMAGE_CODES,
    IMAGE_TABLE,
    TOP_IMAGES,
    Measured,
    read_measured,
)
from bsjax.results.pairing import pair_measured
from bsjax.stages.compare_models import compare_models, require_other
from bsjax.stages.replicate import replicate_set
from bsjax.stats.comparison import Rules

MEASURED = (CONCEPTS, IMAGE_TABLE, IMAGE_CODES, TOP_IMAGES)
NAMES = {  # what is named in a message -> how the command line says it
    "limit": "--limit",
    "subset": "--subset",
    "clusters": "--config.compare.clusters",
    "confirm": "--config.compare.confirm",
}


def compare(
    config: ml_collections.ConfigDict,
    workdir: AnyPath,
    from_statistics: bool = False,
    subset: str | None = None,
    against: str | None = None,
    is_gate: bool = False,
    replicate: str | None = None,
) -> None:
    """Compares the generated set with the real one, and then with another generated set if asked.

    Args:
      config: of the experiment.
      workdir: of the run.
      from_statistics: by other rules, from the statistics of the comparison that is there; neither
        measures nor images are read.
      subset: file with the keys of the pairs to compare, one per line; with `from_statistics`.
      against: another generated set, compared with the same real images.
      is_gate: raise `core.errors.GateFailed` if this set is worse than that one.
      replicate: another workdir, by whose SAE the verdicts that are there are looked at again;
        nothing is compared anew.
    """
    name = generated_name(config)
    if replicate is not None:
        replicate_set(name, workdir, replicate, config.overwrite)
        return
    if against is not None:
        with naming({"against": "--gate" if is_gate else "--against"}):
            require_other(workdir, name, against)  # before anything is computed
    if from_statistics:
        _compare_again(config, workdir / "comparisons" / name, name, subset)
    else:
        _compare(config, workdir, name)
    if against is not None:
        settings = select(config, pipeline.BY_NAME["compare"].config_keys)
        compare_models(
            workdir, against, name, _method(config), settings, config.overwrite, is_gate=is_gate
        )


def _compare(config: ml_collections.ConfigDict, workdir: AnyPath, name: str) -> None:
    manifests = {
        arm: require_manifest(workdir / "measures" / arm, "measure") for arm in (REAL, name)
    }
    folder = workdir / "comparisons" / name
    held_to = controls.find_controls(config, workdir, name)
    names = {kind: controls.name_of(kind, name) for kind in held_to}
    controls.check_compared(config, workdir)
    settings = select(config, pipeline.BY_NAME["compare"].config_keys)
    measured = manifests | {names[kind]: manifest for kind, manifest in held_to.items()}
    parents = {f"measures/{arm}": m["config_hash"] for arm, m in measured.items()}
    done = begin_stage(
        folder, config=settings, parents=parents, overwrite=config.overwrite, stage="compare"
    )
    if done is not None:
        return
    _check_comparable(manifests[REAL], manifests[name], name)
    for kind, manifest in held_to.items():
        _check_comparable(manifests[REAL], manifest, names[kind])
        controls.check_control(names[kind], manifest, *manifests.values())
    real, generated = (
        _read(workdir / "measures" / arm, manifest) for arm, manifest in manifests.items()
    )
    method = _method(config)
    pairing = pair_measured(real, generated, method.pairs, method.seed)
    if config.generator.name == "none":
        pairs.check_pairing(config, real.keys, generated.keys, pairing)
    with naming(NAMES):
        beside = {
            kind: _read(workdir / "measures" / names[kind], manifest)
            for kind, manifest in held_to.items()
        }
        compared = compare_sets(real, generated, method, name, pairing, beside)
    path = str(real.manifest.get(EXPERIMENT, {}).get("real.path", ""))
    before = read_lost(path, real.manifest["counts"].get("listed", 0))
    drawn = read_manifest(workdir / "images" / name, "generate")
    compared = account(compared, pairing, method.rules.margin, before, drawn)
    # A config says of each setting what it is, also of those that this version does not use.
    manifest = {**compared.manifest, "config": settings}
    write_compared(folder, dataclasses.replace(compared, manifest=manifest))
    for arm, keys in ((REAL, pairing.unpaired_real), (name, pairing.unpaired_generated)):
        if keys and pairing.by != LOT:
            logging.warning("%d images of %s have no partner: %s", len(keys), arm, keys[:5])


def _compare_again(
    config: ml_collections.ConfigDict, folder: AnyPath, name: str, subset: str | None
) -> None:
    # What it is made from stays, so that a killed run can be started again.
    restore_pairs(folder)
    statistics, pairs, manifest = read_stored(folder)
    keys = None
    if subset is not None:
        lines = read_text(pathlib.Path(subset).expanduser()).splitlines()
        keys = [line.strip() for line in lines if line.strip()]
    with naming(NAMES):
        compared = compare_again(name, statistics, pairs, manifest, _method(config), keys)
    settings = select(config, pipeline.BY_NAME["compare"].config_keys)
    more = {} if keys is None else {"compare.subset": subset}
    manifest = {**compared.manifest, "config": settings | more}
    with keeping_pairs(folder):
        write_compared(folder, dataclasses.replace(compared, manifest=manifest, statistics=None))


def correlate(left: pathlib.Path, right: pathlib.Path) -> float:
    """r of two comparison folders' log ratios, `bsjax.stats.models`; NaN where it is not known.

    Of a folder with itself it is 1, whatever is known of it.
    """
    if pathlib.Path(left) == pathlib.Path(right):
        return 1.0
    found = {
        place: read_stored(pathlib.Path(folder))[0]
        for place, folder in (("left", left), ("right", right))
    }
    return correlate_all(found)["left", "right"].r


def _method(config: ml_collections.ConfigDict) -> Method:
    rules = Rules(**{name: config.compare[name] for name in Rules._fields})
    return Method(rules, config.compare.clusters, config.seed, config.compare.get("pairs", "auto"))


def _check_comparable(real: dict, generated: dict, name: str) -> None:
    """Both arms must have gone through the same encoder, preprocessing and SAE."""
    for part in ("config", "parents"):
        for key in sorted(real[part]):
            if key not in ("set", "images") and real[part][key] != generated[part].get(key):
                raise UserError(
                    f"measures/real and measures/{name} differ in {key}: {real[part][key]} and"
                    f" {generated[part].get(key)}; measure both with one config"
                )


def _read(folder: AnyPath, manifest: dict) -> Measured:
    """One arm's artifacts.

    Raises:
      UserError: a file is not what `measure` wrote, or the rows of two do not belong together.
    """
    return read_measured(folder, manifest, MEASURED)
