"""compare: two measured image sets, or two matrices of image codes -> a comparison."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from absl import logging
from matplotlib.axes import Axes

from bsjax import presets
from bsjax.analysis import comparison as analysis
from bsjax.analysis.attrition import account
from bsjax.analysis.models import Moved, compare_models
from bsjax.api.arguments import naming_arguments
from bsjax.api.codes import as_codes, as_labels
from bsjax.core import lock
from bsjax.core.artifacts import CONTROL, REAL, begin_stage, hash_json
from bsjax.core.errors import UserError
from bsjax.core.frames import to_pandas
from bsjax.core.ranges import CONTROLS, RANGES
from bsjax.data.pairing import LOT
from bsjax.experiment.controls import name_of
from bsjax.report import figures
from bsjax.report.tables import as_shown
from bsjax.results.comparisons import Compared, write_compared
from bsjax.results.measures import Measured, write_measured
from bsjax.results.pairing import pair_measured
from bsjax.stages.report import report as write_report

# What decides a set's codes beside its images.
PREPARED = ("encoder.resize", "encoder.crop", "encoder.dtype", "sae.threshold")
SHOWN = 5  # keys that a message names


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Comparison(Compared):
    """How a generated image set differs from the real one, concept by concept and pair by pair.

    Attributes:
      name: of the generated set.
      concepts: pyarrow.Table, one row per concept; columns and units in
        `bsjax.results.columns.COMPARED_CONCEPTS`.
      pairs: pyarrow.Table, one row per pair, most alike first; columns in
        `bsjax.results.columns.DATAPOINTS`.
      manifest: settings, counts, notes, control, keys without a partner.
      real: the measured real images; None where codes alone were compared.
      generated: the measured generated images.
      changed: the measured controls, by the name of their set.
    """

    changed: Mapping[str, Measured] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{n} {kind.replace('_', ' ')}"
            for kind, n in self.counts.items()
            if not kind.startswith("unpaired")
        )
        return f"Comparison({self.name!r}: {self.concepts.num_rows} concepts; {counts})"

    @property
    def counts(self) -> dict[str, int]:
        """Pairs, images without a partner, and concepts of each verdict."""
        return dict(self.manifest["counts"])

    @property
    def notes(self) -> list[str]:
        """Warnings that belong beside every number."""
        return list(self.manifest["notes"])

    @property
    def control(self) -> dict[str, Any]:
        """Arms swapped by chance: share of concepts that pass at 5 %, called, inflation, draws."""
        return dict(self.manifest["control"])

    def to_arrow(self) -> pa.Table:
        """The table of concepts."""
        return self.concepts

    def to_pandas(self) -> Any:
        """The table of concepts as a pandas.DataFrame; `to_pandas` of `pairs` gives the other.

        Raises:
          UserError: pandas is not installed.
        """
        return to_pandas(self.concepts)

    def plot(self, kind: str = "ranking", axes: Axes | None = None) -> Axes:
        """Draws a figure of the report; returns its axes.

        Args:
          kind: "ranking" (the strongest concepts with their intervals), "histogram" (delta of all
            concepts), "rarity" (delta against fires) or "energies" (one set against the other).
          axes: of matplotlib, to draw on; None: of a new figure.

        Raises:
          UserError: no such kind, or one that needs measured images.
        """
        if kind not in figures.DRAWINGS:
            raise UserError(
                f"{{kind}}={kind!r}: expected one of {', '.join(figures.DRAWINGS)}; set {{kind}} to"
                " one",
                "kind",
            )
        if kind == "rarity" and self.real is None:
            raise UserError(
                "{kind}='rarity' needs fires, which image codes do not tell; measure images, or"
                " choose another",
                "kind",
            )
        return figures.draw_on(axes, as_shown(self), kind)

    def against(self, other: "Comparison", **rules: Any) -> Moved:
        """This generated set held against another one of the same captions: `compare --against`.

        Args:
          other: a comparison with the same real images, of the set to hold this one against (A).
          **rules: as `compare` takes them.

        Returns:
          What moved towards the real images or away from them: `concepts`, with the columns of
          `bsjax.results.columns.MOVED_CONCEPTS` (A is `other`, B this one), and `manifest`.

        Raises:
          UserError: other real images, no pairs in common, or a comparison read from a folder.
        """
        if not isinstance(other, Comparison):
            raise UserError(
                f"{{other}} is a {type(other).__name__}; expected a comparison; give what"
                " bsjax.compare or bsjax.compare_codes returns",
                "other",
            )
        if self.statistics is None or other.statistics is None:
            raise UserError(
                "a comparison that was read from a folder keeps no statistics; compare again, or"
                " run `bsjax compare --against`"
            )
        method = analysis.make_method(rules)
        names = (other.name, self.name)
        return compare_models(other.statistics, self.statistics, names, method)

    def save(self, folder: str | os.PathLike, *, overwrite: bool = False) -> str:
        """Writes the comparison, and the measures of both sets, as a workdir of `bsjax`.

        Several comparisons with the same real images may go into one folder, under names of their
        own (`bsjax.compare(..., name=...)`); `bsjax.open_results` reads them.

        Args:
          folder: made if it is not there.
          overwrite: write over a comparison of that name.

        Returns:
          The folder.

        Raises:
          UserError: other results of that name are there, or a full disk.
        """
        workdir = pathlib.Path(folder).expanduser()
        with naming_arguments({"--workdir": "folder"}), lock.hold(workdir, "compare"):
            target = workdir / "comparisons" / self.name
            arms = {REAL: self.real, self.name: self.generated, **self.changed}
            for arm, measured in arms.items():
                if measured is not None:
                    write_measured(measured, workdir, arm, overwrite and arm != REAL)
            settings, parents = self.manifest["config"], self.manifest["parents"]
            done = begin_stage(
                target, config=settings, parents=parents, overwrite=overwrite, stage="compare"
            )
            if done is None:
                write_compared(target, self)
        return str(workdir)

    def report(self, folder: str | os.PathLike, *, overwrite: bool = False) -> str:
        """`save`, and the explorer of all comparisons in the folder.

        Args:
          folder: of the results; report/index.html opens from disk.
          overwrite: write over a comparison of that name.

        Returns:
          The path of report/index.html.

        Raises:
          UserError: as `save`, or only codes were compared.
        """
        if self.real is None:
            raise UserError("a report shows images; compare measured sets, not codes alone")
        workdir = pathlib.Path(self.save(folder, overwrite=overwrite))
        config = presets.experiment()
        config.sae.weights = self.real.sae
        with naming_arguments(), lock.hold(workdir, "report"):
            write_report(config, workdir)
        return str(workdir / "report" / "index.html")


def compare(
    real: Measured,
    generated: Measured,
    *,
    name: str = "generated",
    max_unpaired: float = 0.1,
    controls: Mapping[str, Measured] | None = None,
    **rules: Any,
) -> Comparison:
    """Compares two measured image sets over the images of the same key: `bsjax compare`.

    Args:
      real: the real images, from `bsjax.measure`.
      generated: those generated from their captions, measured by the same encoder and SAE.
      name: of the generated set.
      max_unpaired: largest share of either set that may have no partner; it is left out.
      controls: the real images, changed without any generator, and measured under their keys, by
        kind ("jpeg": saved as JPEG; "crop": at the generator's size; "vae": through its
        autoencoder). A concept is called only beyond what each of these does to it.
      **rules: form ("relative" or "difference"), temperature of delta (by default the
        reference's: 0.4 or 0.8), margin (fold: suppressed and exaggerated concepts changed by
        more; 1.5), aligned (fold: aligned ones changed by less; 2), fdr (of each test; 0.05),
        confirm (share of the clusters held back; 0), clusters ("auto", "caption", "image" or
        "none": pairs that count as one), pairs ("auto": by key, else by caption; "none": by lot,
        for sets of different captions), seed. Several generated images of one real one count as
        one.

    Raises:
      UserError: no key in common, too many without a partner, sets of different encoders or SAEs,
        no such rule or control.
    """
    method = analysis.make_method(rules)
    controls = _known(controls or {})
    beside = [("controls", each) for each in controls.values()]
    for what, value in (("real", real), ("generated", generated), *beside):
        if not isinstance(value, Measured):
            raise UserError(
                f"{{{what}}} is a {type(value).__name__}; expected what bsjax.measure returns"
                " (bsjax.compare_codes takes arrays)",
                what,
            )
    bounds = RANGES["real.max_unpaired"]
    if not bounds.holds(max_unpaired):
        raise UserError(
            f"{{max_unpaired}}={max_unpaired!r}: expected {bounds}; set it so", "max_unpaired"
        )
    if not name or name in (REAL, ".", "..") or "/" in name or name.startswith(CONTROL):
        raise UserError(
            f"{{name}}={name!r}: expected a folder's name that is not real and does not begin with "
            f"{CONTROL}; give another",
            "name",
        )
    _require_same_making(real.manifest, generated.manifest)
    controls = {kind: _as_control(each, kind, name) for kind, each in controls.items()}
    for each in controls.values():
        _require_same_making(real.manifest, each.manifest)
    pairing = pair_measured(real, generated, method.pairs, method.seed)
    for what, other, keys, unpaired in (
        ("real", "generated", real.keys, pairing.unpaired_real),
        ("generated", "real", generated.keys, pairing.unpaired_generated),
    ):
        if not unpaired or pairing.by == LOT:
            continue
        fault = (
            f"{len(unpaired)} of {len(keys)} {what} images have no {other} image"
            f" ({', '.join(map(repr, unpaired[:SHOWN]))}{', ...' if unpaired[SHOWN:] else ''})"
        )
        if len(unpaired) > max_unpaired * len(keys):
            raise UserError(
                f"{fault}, at most {max_unpaired:.2%} may: give both the same keys, or raise"
                " {max_unpaired}",
                "max_unpaired",
            )
        logging.warning("%s: they are left out of the comparison", fault)
    found = analysis.compare_sets(real, generated, method, name, pairing, controls)
    found = account(found, pairing, method.rules.margin)
    return Comparison(
        **{field.name: getattr(found, field.name) for field in FIELDS},
        changed={each.name: each for each in controls.values()},
    )


def compare_codes(
    real: Any,
    generated: Any,
    captions: Sequence[str] | None = None,
    clusters: Sequence[Any] | np.ndarray | str | None = None,
    **rules: Any,
) -> Comparison:
    """Compares paired image codes of any SAE, of any framework.

    An image's code is the sum of its tokens' codes, one number per concept, 0 or more.

    Args:
      real: [n, K], a row per real image: an array, or a matrix of scipy.sparse.
      generated: [n, K], a row per image generated for the same caption.
      captions: n texts: pairs of one caption are one cluster, and words of the concepts are found
        in them.
      clusters: n labels of what counts as one, or "auto" (one caption or one real image; the
        default), "caption", "image", "none". Estimates average a cluster, tests take one pair of
        it. The table of pairs has all rows.
      **rules: the others that `compare` takes.

    Raises:
      UserError: shapes that differ, codes that are negative or not finite, fewer than two pairs, no
        such rule.
    """
    if clusters is None or isinstance(clusters, str):
        rules, clusters = {"clusters": clusters or "auto", **rules}, None
    method = analysis.make_method(rules)
    given = {"real": real, "generated": generated}
    matrices = [as_codes(codes, name) for name, codes in given.items()]
    shapes = [matrix.shape for matrix in matrices]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{{real}} is {list(shapes[0])}, {{generated}} {list(shapes[1])}; expected the same"
            " [n, K]: a row per pair, a column per concept; leave out rows without a partner",
            "real",
            "generated",
        )
    for name, values in (("captions", captions), ("clusters", clusters)):
        if values is not None and len(values) != shapes[0][0]:
            raise UserError(
                f"{{{name}}} has {len(values)} entries, expected one for each of the"
                f" {shapes[0][0]} pairs",
                name,
            )
    if captions is not None:
        captions = [str(caption or "") for caption in captions]
    if clusters is not None:
        clusters = as_labels(clusters)
    found = analysis.compare_codes(*matrices, method, captions, clusters)
    return Comparison(**{field.name: getattr(found, field.name) for field in FIELDS})


FIELDS = dataclasses.fields(Compared)


def _known(controls: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(controls) - set(CONTROLS)):
        raise UserError(
            f"{{controls}} has {', '.join(unknown)}; expected some of {', '.join(CONTROLS)}: set"
            " {controls} to a dict from kind to measured set",
            "controls",
        )
    return dict(controls)


def _as_control(measured: Measured, kind: str, generated: str) -> Measured:
    """A measured set under the name that the control of a generated set has in a workdir."""
    made = {
        "config": measured.manifest["config"] | {"set": name_of(kind, generated)},
        "parents": measured.manifest["parents"],
    }
    manifest = {**measured.manifest, **made, "config_hash": hash_json(made)}
    return dataclasses.replace(measured, manifest=manifest)


def _require_same_making(real: Any, generated: Any) -> None:
    """Both sets must have gone through the same encoder, preprocessing and SAE."""
    pairs = [(key, "config") for key in PREPARED] + [("encoder", "parents"), ("sae", "parents")]
    for key, part in pairs:
        found = real[part].get(key), generated[part].get(key)
        if found[0] != found[1]:
            what = {"encoder": "weights of the encoder", "sae": "weights of the SAE"}.get(key, key)
            raise UserError(
                f"{{real}} and {{generated}} differ in {what}: {found[0]} and {found[1]}; measure"
                " both with one encoder and one SAE",
                "real",
                "generated",
            )
