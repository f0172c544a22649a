"""measures/<set>/: what one image set shows, read and written in this place alone.

concepts.parquet  images.parquet  columns as `bsjax.results.columns` lists them
image_codes.npz   [n, K] scipy.sparse CSR: energy of each concept in each image
image_tokens.npz  [n, K] scipy.sparse CSR: tokens of each image that fire for each concept
cooccurrence.npz  [K, K] scipy.sparse CSR: Z^T Z of all tokens' codes
top_images.npz    images [K, L] rows, -1 where there are no more; scores [K, L] means over the
                  patches; maps [K, L, h, w] and special [K, L, 1 + registers] codes, float16
patches.npz       values [n, h, w, c] int8, scale [n], mean [n, c]: sketches of the patch tokens, as
                  `bsjax.stats.copies` makes them; older sets, and some encoders, have none
"""

import dataclasses
import functools
import os
import pathlib
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from PIL import Image

from bsjax.core import addresses, mirror
from bsjax.core.artifacts import (
    again,
    atomic_path,
    check_files,
    read_manifest,
    require_manifest,
    write_manifest,
)
from bsjax.core.errors import UserError
from bsjax.core.frames import to_pandas
from bsjax.core.paths import AnyPath
from bsjax.data.captions import Record
from bsjax.data.decode import decode_rgb
from bsjax.data.sources import read_image
from bsjax.results.columns import CLUSTER, IMAGES, MEASURED_CONCEPTS, require_columns
from bsjax.stats import copies
from bsjax.stats.together import strongest_together

CONCEPTS, IMAGE_TABLE = "concepts.parquet", "images.parquet"
IMAGE_CODES, COOCCURRENCE, TOP_IMAGES = "image_codes.npz", "cooccurrence.npz", "top_images.npz"
PATCHES, IMAGE_TOKENS = "patches.npz", "image_tokens.npz"
FILES = (CONCEPTS, IMAGE_TABLE, IMAGE_CODES, COOCCURRENCE, TOP_IMAGES)  # that each set has
MOST_TOGETHER = 10  # co-occurring concepts kept


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """One image set, described by the concepts of an SAE.

    Large parts are read when they are asked for, from `folder`.

    Attributes:
      manifest: of the artifact: config, parents, counts, notes, images that could not be used.
      images: one row per image, columns `bsjax.results.columns.IMAGES`.
      codes: [n, K] energy of each concept in each image: the sum of its codes over all tokens.
      top_rows: [K, L] rows of the images in which each concept is strongest; -1: no more.
      folder: of the artifact.
      parts: file name -> what it holds, where there is no such file.
      pictures: images that are in memory alone, by row.
      sae: what the SAE was read from, where that is known.
      owner: what the folder goes with, if it is a temporary one.
    """

    manifest: Mapping[str, Any]
    images: pa.Table
    codes: sp.csr_array
    top_rows: np.ndarray
    folder: AnyPath | None = None
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    pictures: Mapping[int, Any] = dataclasses.field(default_factory=dict, repr=False)
    sae: str = ""
    owner: Any = dataclasses.field(default=None, repr=False)

    def __repr__(self) -> str:
        n, n_concepts = self.codes.shape
        return f"Measured({self.name!r}: {n} images x {n_concepts} concepts)"

    @property
    def name(self) -> str:
        """Of the set: "real", or as the generated set is called."""
        return self.manifest.get("config", {}).get("set", "")

    @property
    def notes(self) -> list[str]:
        """Warnings that belong beside every number."""
        return list(self.manifest.get("notes", ()))

    @functools.cached_property
    def concepts(self) -> pa.Table:
        """One row per concept, columns `bsjax.results.columns.MEASURED_CONCEPTS`."""
        return self._part(CONCEPTS, pq.read_table)

    @functools.cached_property
    def cooccurrence(self) -> sp.csr_array:
        """[K, K] sum over all tokens of z z^T; both triangles and the diagonal."""
        return self._part(COOCCURRENCE, _read_csr)

    @functools.cached_property
    def maps(self) -> np.ndarray:
        """[K, L, h, w] codes of the top images' patches, float16."""
        return self._top["maps"]

    @functools.cached_property
    def special(self) -> np.ndarray:
        """[K, L, 1 + registers] codes of the top images' class token and registers, float16."""
        return self._top["special"]

    @functools.cached_property
    def _top(self) -> dict[str, np.ndarray]:
        return self._part(TOP_IMAGES, _read_top_codes)

    @functools.cached_property
    def patches(self) -> copies.Sketch | None:
        """Sketches of the images' patch tokens; None where none were kept, or in another form."""
        if PATCHES not in self.parts and PATCHES not in self.manifest.get("files", ()):
            return None
        return self._part(PATCHES, _read_patches)

    @functools.cached_property
    def tokens(self) -> sp.csr_array | None:
        """[n, K] tokens of each image that fire for each concept; None where not kept."""
        if IMAGE_TOKENS not in self.parts and IMAGE_TOKENS not in self.manifest.get("files", ()):
            return None
        return self._part(IMAGE_TOKENS, _read_csr)

    @functools.cached_property
    def keys(self) -> list[str]:
        """[n] names that pair the images."""
        return self.images["key"].to_pylist()

    @functools.cached_property
    def captions(self) -> list[str]:
        """[n] captions, empty where there is none."""
        return self.images["caption"].to_pylist()

    @functools.cached_property
    def paths(self) -> list[str]:
        """[n] where the images lie, as `bsjax.data.sources.read_image` takes it."""
        paths = self.images["path"].to_pylist()
        if self.folder is None:
            return paths
        return [addresses.find(path, _workdir(self.folder)) for path in paths]

    @functools.cached_property
    def place(self) -> dict[str, int]:
        """Row of each key."""
        return {key: row for row, key in enumerate(self.keys)}

    def image(self, row: int) -> Image.Image:
        """The image of a row as RGB, wherever it lies.

        Raises:
          UserError: it cannot be read any more.
        """
        path = self.paths[row]
        try:
            return decode_rgb(self.pictures[row] if row in self.pictures else read_image(path))
        except (OSError, ValueError) as error:
            raise UserError(
                f"image {self.keys[row]!r} of {path or 'memory'} cannot be read: {error}; put it"
                " back, or measure again"
            ) from error

    @functools.cached_property
    def together(self) -> tuple[np.ndarray, np.ndarray]:
        """Concepts that fire with each: ids and strength [K, MOST_TOGETHER]."""
        return strongest_together(self.cooccurrence, MOST_TOGETHER)

    @property
    def resize(self) -> int:
        """Pixels of the short side, before the crop."""
        return self.manifest["config"]["encoder.resize"]

    @property
    def crop(self) -> int:
        """Pixels of the centre crop that the encoder saw."""
        return self.manifest["config"]["encoder.crop"]

    def to_arrow(self) -> pa.Table:
        """The table of concepts."""
        return self.concepts

    def to_pandas(self) -> Any:
        """The table of concepts as a pandas.DataFrame.

        Raises:
          UserError: pandas is not installed.
        """
        return to_pandas(self.concepts)

    def save(self, workdir: str | os.PathLike, name: str = "") -> str:
        """Writes measures/<name>/ below a workdir; returns that folder.

        Images that are in memory alone are written as PNG into images/<name>/, to be shown.

        Raises:
          UserError: another set of that name is there.
        """
        return str(write_measured(self, pathlib.Path(workdir).expanduser(), name or self.name))

    def _part(self, name: str, read: Callable[[AnyPath], Any]) -> Any:
        if name in self.parts:
            return self.parts[name]
        check_files(self.folder, self.manifest, [name])
        return read(self.folder / name)


def read_measured(
    folder: AnyPath,
    manifest: Mapping[str, Any] | None = None,
    names: Sequence[str] = (IMAGE_TABLE, TOP_IMAGES, IMAGE_CODES),
) -> Measured:
    """Reads measures/<set>/.

    Args:
      folder: of the artifact.
      manifest: its manifest, where it was read before.
      names: files that must be what `measure` wrote; others are checked when they are read.

    Raises:
      UserError: unfinished, a file is not what `measure` wrote, or the rows of two do not belong
        together.
    """
    manifest = require_manifest(folder, "measure") if manifest is None else manifest
    folder = mirror.fetch(folder)
    check_files(folder, manifest, names)
    with np.load(folder / TOP_IMAGES, allow_pickle=False) as top:
        top_rows = top["images"]
    measured = Measured(
        manifest=manifest,
        images=pq.read_table(folder / IMAGE_TABLE),
        codes=_read_csr(folder / IMAGE_CODES),
        top_rows=top_rows,
        folder=folder,
    )
    n_images, n_concepts = measured.codes.shape
    found = (measured.images.num_rows, len(top_rows))
    if CONCEPTS in names:
        found = (measured.images.num_rows, measured.concepts.num_rows)
    if found != (n_images, n_concepts):
        raise UserError(
            f"{folder}: image_codes.npz has {n_images} images x {n_concepts} concepts, the tables"
            f" {found[0]} x {found[1]}; {again('measure')}"
        )
    refuse_duplicates(measured.keys, folder / IMAGE_TABLE)
    return measured


def refuse_duplicates(keys: Iterable[str], origin: object) -> None:
    """Images are known by their keys: each must be there once.

    Raises:
      UserError: one is not.
    """
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise UserError(
            f"{origin}: {len(twice)} keys are there more than once (such as {twice[0]!r}); images"
            " are paired by key: give each a name of its own"
        )


def write_concepts(folder: AnyPath, statistics: Mapping[str, np.ndarray]) -> None:
    """Writes concepts.parquet.

    Args:
      folder: of the artifact.
      statistics: columns [K], in the order of the table, without the first.
    """
    n_concepts = len(next(iter(statistics.values())))
    table = pa.table({"concept": np.arange(n_concepts, dtype=np.int32), **statistics})
    write_table(folder / CONCEPTS, require_columns(table, MEASURED_CONCEPTS))


def write_images(folder: AnyPath, records: Sequence[Record]) -> None:
    """Writes images.parquet: one row per record, and its further texts."""
    columns = {
        "row": np.arange(len(records), dtype=np.int32),
        "key": [record.key for record in records],
        "caption": [record.caption for record in records],
        "path": [addresses.within(record.path, _workdir(folder)) for record in records],
    }
    clusters = [record.cluster or record.key for record in records]
    extra = {name for record in records for name in record.extra}
    if clusters != columns["key"] or CLUSTER in extra:
        columns[CLUSTER] = clusters
    for name in sorted(extra - columns.keys()):
        columns[name] = [record.extra.get(name, "") for record in records]
    write_table(folder / IMAGE_TABLE, require_columns(pa.table(columns), IMAGES, with_more=True))


def write_top_images(
    folder: AnyPath,
    rows: np.ndarray,
    scores: np.ndarray,
    maps: np.ndarray,
    special: np.ndarray,
) -> None:
    """Writes top_images.npz; arrays as the module's docstring has them."""
    with atomic_path(folder / TOP_IMAGES) as temporary:
        np.savez_compressed(temporary, images=rows, scores=scores, maps=maps, special=special)


def write_patches(folder: AnyPath, n: int, sketches: Iterable[copies.Sketch]) -> None:
    """Writes patches.npz of n images, part by part: never more than one is held."""
    with atomic_path(folder / PATCHES) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        small: list[tuple[np.ndarray, ...]] = []
        with archive.open("values.npy", "w", force_zip64=True) as entry:
            for sketch in sketches:
                if not small:
                    shape = (n, *sketch.values.shape[1:])
                    header = {"descr": np.dtype(np.int8).str, "fortran_order": False}
                    np.lib.format.write_array_header_1_0(entry, header | {"shape": shape})
                entry.write(np.ascontiguousarray(sketch.values, np.int8).tobytes())
                small.append(sketch[1:])
        arrays = [np.concatenate(parts) for parts in zip(*small, strict=True)]
        named = dict(zip(copies.Sketch._fields[1:], arrays, strict=True))
        for name, array in {**named, "format": np.array(copies.FORMAT)}.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def write_table(path: AnyPath, table: pa.Table) -> None:
    """Writes a parquet file, whole or not at all."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def write_measured(
    measured: Measured, workdir: AnyPath, name: str, overwrite: bool = False
) -> AnyPath:
    """Copies a measured set into a workdir, where it may stand already.

    Args:
      measured: the set.
      workdir: that will hold measures/<name>/.
      name: of the set there.
      overwrite: another set of that name goes.

    Raises:
      UserError: another set of that name is there, or a file is not what `measure` wrote.
    """
    folder = workdir / "measures" / name
    if measured.folder is None:
        raise UserError("these measures were made from codes alone; there is nothing to save")
    found = read_manifest(folder, "measure")
    if found is not None and found["config_hash"] == measured.manifest["config_hash"]:
        return folder
    if found is not None and not overwrite:
        raise UserError(f"{folder} holds another image set; choose another folder or name")
    shutil.rmtree(folder, ignore_errors=True)
    manifest = dict(measured.manifest)
    check_files(measured.folder, manifest)
    folder.mkdir(parents=True, exist_ok=True)
    for file in manifest["files"]:
        if file != IMAGE_TABLE:
            with atomic_path(folder / file) as temporary:
                shutil.copyfile(measured.folder / file, temporary)
    paths = [addresses.within(path, workdir) if path else "" for path in measured.paths]
    for row, picture in measured.pictures.items():
        path = workdir / "images" / name / f"{row:06d}.png"
        with atomic_path(path) as temporary:
            picture.save(temporary)
        paths[row] = addresses.within(str(path), workdir)
    place = measured.images.column_names.index("path")
    table = measured.images.set_column(place, "path", pa.array(paths, pa.string()))
    write_table(folder / IMAGE_TABLE, require_columns(table, IMAGES, with_more=True))
    known = ("stage", "config", "parents", "counts", "notes")
    more = {"bad_images": manifest["bad_images"]}
    write_manifest(folder, **{key: manifest[key] for key in known}, **more)
    return folder


def _workdir(folder: AnyPath) -> AnyPath:
    return folder.parent.parent


def _read_csr(path: AnyPath) -> sp.csr_array:
    return sp.csr_array(sp.load_npz(path))


def _read_patches(path: AnyPath) -> copies.Sketch | None:
    with np.load(path, allow_pickle=False) as arrays:
        if int(arrays["format"]) != copies.FORMAT:
            return None
        return copies.Sketch(*(arrays[name] for name in copies.Sketch._fields))


def _read_top_codes(path: AnyPath) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in ("maps", "special")}
