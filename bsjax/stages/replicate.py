"""compare --replicate: the verdicts of a comparison beside those of another SAE.

Reads comparisons/<set>/ of two workdirs; writes replications/<set>/<other>/ of the first.
"""

import os
import sys

from absl import logging
from etils import epath

from bsjax.analysis.replication import SAME_SAE, SETTINGS, Judged, replicate
from bsjax.core.artifacts import (
    MANIFEST,
    REAL,
    begin_stage,
    is_remote,
    list_finished,
    read_manifest,
)
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.data.sources import read_image
from bsjax.results.comparisons import CONCEPTS, STATISTICS, read_concepts, read_stored
from bsjax.results.measures import IMAGE_TABLE, read_measured
from bsjax.results.replications import (
    STAGE,
    Replication,
    read_replication,
    write_replication,
)


def replicate_set(name: str, workdir: AnyPath, other: str, overwrite: bool = False) -> None:
    """Compares verdicts of a set in one workdir with those in another, and prints one line.

    Args:
      name: of the generated set.
      workdir: whose verdicts are in question.
      other: the other workdir: the same image sets, measured by another SAE.
      overwrite: make it anew.

    Raises:
      UserError: the same workdir, no such comparison there, other images or other rules.
    """
    workdir = epath.Path(workdir)
    there = _other(workdir, other)
    folders = [root / "comparisons" / name for root in (workdir, there)]
    if not (folders[1] / MANIFEST).exists():
        held = ", ".join(list_finished(there / "comparisons"))
        raise UserError(
            f"--replicate={there} holds no comparison of {name}"
            f" ({f'it has {held}' if held else 'it has none'}); run `bsjax compare` there first, or"
            " set --replicate to the workdir of another SAE"
        )
    sides = [read_side(folder) for folder in folders]
    for arm in (REAL, name):
        check_images(arm, name if arm == name else "the real images", workdir, there)
    settings = {"replicate": str(there)} | SETTINGS
    parents = {
        f"{side}/{file}": judged.manifest["files"][file]["sha256"]
        for side, judged in zip(("here", "there"), sides, strict=True)
        for file in (STATISTICS, CONCEPTS)
    }
    target = workdir / "replications" / name / (there.name or "other")
    done = begin_stage(target, config=settings, parents=parents, overwrite=overwrite, stage=STAGE)
    if done is None:
        made = replicate(*sides)
        notes = list(dict.fromkeys([*made.manifest["notes"], *_notes(REAL, workdir, there)]))
        told = {"config": settings, "parents": parents, "notes": notes}
        write_replication(target, Replication(made.concepts, {**made.manifest, **told}))
    found = read_replication(target)
    for note in found.manifest["notes"]:
        logging.warning("%s", note)
    sys.stdout.write(f"{name} against {there}: {found}\n")


def read_side(folder: AnyPath) -> Judged:
    """A finished comparison with what it was made from.

    Raises:
      UserError: it is not finished, keeps no statistics, or is damaged.
    """
    statistics, _, manifest = read_stored(folder)
    concepts, _ = read_concepts(folder)
    return Judged(str(folder), statistics, concepts, manifest)


def check_images(arm: str, name: str, here: AnyPath, there: AnyPath) -> None:
    """Refuses sets of other images; where codes alone were compared nothing is known of them.

    Args:
      arm: folder of the set's measures.
      name: what messages call it.
      here, there: workdirs.

    Raises:
      UserError: which image differs, or cannot be read to tell.
    """
    folders = [root / "measures" / arm for root in (here, there)]
    manifests = [read_manifest(folder, "measure") for folder in folders]
    if None in manifests or len({m["parents"].get("images") for m in manifests}) == 1:
        return
    # The digest holds dates, so that of copies of the same files differs: their bytes decide.
    tables = [read_measured(folder, names=(IMAGE_TABLE,)) for folder in folders]
    places = dict(zip(tables[1].keys, tables[1].paths, strict=True))
    for key, path in zip(tables[0].keys, tables[0].paths, strict=True):
        if key not in places:
            continue  # without a partner on one side, or pairs that differ, which is told later
        try:
            differs = read_image(path) != read_image(places[key])
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folders[0]} and {folders[1]} were measured from other files or dates of {name},"
                f" and {key!r} cannot be read to tell whether it is the same image ({error});"
                " measure both from the same images"
            ) from error
        if differs:
            raise UserError(
                f"{folders[0]} and {folders[1]} differ in images: {key!r} is {path} and"
                f" {places[key]}; measure both from the same images"
            )


def _notes(name: str, here: AnyPath, there: AnyPath) -> list[str]:
    """What differs in how both were measured beside the SAE."""
    manifests = [read_manifest(root / "measures" / name, "measure") for root in (here, there)]
    if None in manifests:
        return []
    left, right = manifests
    notes = []
    if left["parents"].get("encoder") != right["parents"].get("encoder"):
        notes.append("the encoders differ, too: this is replication over encoders and SAEs")
    if left["parents"].get("sae") == right["parents"].get("sae"):
        levels = [each["config"].get("sae.threshold") for each in manifests]
        told = f"the other SAE is the same at another threshold: {levels[0]} and {levels[1]}"
        notes.append(SAME_SAE if levels[0] == levels[1] else told)
    return notes


def _other(workdir: AnyPath, other: str) -> AnyPath:
    """The other workdir, if it is one and another."""
    if not other.strip():
        raise UserError("--replicate names no workdir; set it to that of another SAE")
    there = epath.Path(other).expanduser()
    if not there.exists():
        raise UserError(f"--replicate={other} does not exist; set it to another workdir")
    if os.path.realpath(there) == os.path.realpath(workdir):
        raise UserError(f"--replicate={other} is the workdir itself; set it to that of another SAE")
    # By its full name, so that it is known whence a later run is started.
    return there if is_remote(there) else epath.Path(os.path.realpath(there))
