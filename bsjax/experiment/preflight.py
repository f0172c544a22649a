"""What can be known before minutes or hours of work: paths, pairs, captions, weights, room on disk.

`run` checks all of it first (`check_run`); each stage the part that concerns it. Reads listings and
headers of files; writes nothing that stays.
"""

import functools
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging

from bsjax.convert.rasae import TRAINED, digest_of_header, look_at_parameters, look_at_rasae
from bsjax.core.artifacts import MANIFEST, REAL, is_remote
from bsjax.core.dims import Grid
from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh
from bsjax.core.paths import AnyPath
from bsjax.data.token_store import storage_bill
from bsjax.encoders.protocol import Backbone
from bsjax.experiment import controls, inputs
from bsjax.experiment.encoder import open_encoder
from bsjax.experiment.pairs import check_arms, check_prompts
from bsjax.experiment.pairs import check_pairing as check_pairing
from bsjax.experiment.recipe import check_mesh, fresh_state, make_recipe
from bsjax.report.exchange import read_imported
from bsjax.report.names import look_at_names
from bsjax.stats import copies

CODE_BYTES = 8  # a code on disk: a float32 and the number of its concept
# Shares of the uncompressed bytes that files take at least and at most. Flat drawings as PNG come
# to a tenth, noise to all; weights as orbax packs them to nine tenths.
PNG, CHECKPOINT = (0.1, 1.05), (0.8, 1.0)
# Codes per token, against those that an SAE was trained for; the most with all pairs of concepts.
CODES = (0.5, 10.0)


@runtime_checkable
class Sizes(Protocol):
    """What an encoder, opened or loaded, says of its tokens."""

    width: int

    def grid(self, height: int, width: int) -> Grid:
        """As `Backbone.grid`."""


class Bill(NamedTuple):
    """What one part of a run writes below a folder, in bytes."""

    what: str
    folder: str
    least: float
    most: float


def check_run(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
    """Everything that `run` can know before its first stage works.

    Raises:
      UserError: the first thing that would stop the run later.
    """
    has_generator = config.generator.name != "none"
    check_workdir(workdir)
    encoder = check_encoder(config)
    n_concepts = check_sae(config, encoder)
    check_report(config, workdir, n_concepts)
    real = inputs.load_set(config, "real") if config.real.path else None
    n_images = {REAL: 0 if real is None else len(real.images.records)}
    name = inputs.generated_name(config)
    if has_generator:
        prompts = inputs.list_prompts(config).usable
        n_images[name] = len(prompts)
        if real is not None:
            check_prompts(config, real, prompts)
    else:
        generated = inputs.load_set(config, "generated")
        n_images[name] = len(generated.images.records)
        check_arms(config, real, generated)
    check_training(config, workdir, sum(n_images.values()), encoder)
    if has_generator:
        controls.check_generator(config, inputs.open_generator(config, workdir).generator)
    n_changed = controls.n_images(config, n_images[REAL])
    bills = bills_of_measures(config, workdir, n_images | n_changed, encoder)
    bills += bills_of_training(config, workdir, sum(n_images.values()), encoder)
    if has_generator:
        bills += bills_of_images(config, workdir, n_images[name])
        for drawn in controls.drawn(n_changed):
            bills += bills_of_images(config, workdir, n_changed[drawn], drawn)
    check_disk(bills)


def check_workdir(workdir: str | os.PathLike, flag: str = "--workdir") -> None:
    """Writes a file into the workdir, which is made where it is missing, and removes it.

    Raises:
      UserError: it cannot be written.
    """
    if is_remote(workdir):
        return
    try:
        os.makedirs(workdir, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=workdir, prefix=".bsjax-") as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        raise UserError(
            f"{flag}={os.fspath(workdir)} cannot be written ({error.strerror}): change its"
            f" permissions, free space, or choose another {flag}"
        ) from error


def check_encoder(config: ml_collections.ConfigDict) -> Backbone:
    """Holds the encoder's weights to its variant by their headers.

    Raises:
      UserError: none there, damaged, or of another model; a plug-in that is no encoder.
    """
    return open_encoder(config)


def check_sae(config: ml_collections.ConfigDict, encoder: Backbone | None = None) -> int:
    """Holds the SAE of the config to the encoder, and the concept to be ranked to the SAE.

    Args:
      config: the experiment.
      encoder: of the config; None: it is opened.

    Returns:
      How many concepts it has, or will have.

    Raises:
      UserError: no such SAE, one for features of another width, no such concept.
    """
    n_concepts, weights = config.train.n_concepts, config.sae.weights
    if weights:
        width, n_concepts = look_at_rasae(weights)
        encoder = encoder or open_encoder(config)
        name = getattr(encoder, "variant", config.encoder.variant)
        inputs.check_width(weights, width, encoder.width, name)
    check_ranked(config, n_concepts)
    return n_concepts


def check_report(config: ml_collections.ConfigDict, workdir: AnyPath, n_concepts: int) -> None:
    """Reads what people put into the workdir for the report: names of concepts, others' results.

    Args:
      config: the experiment.
      workdir: of the run.
      n_concepts: of the SAE.

    Raises:
      UserError: the report, made last, could not be written with it.
    """
    if is_remote(workdir):
        return
    weights, trained = config.sae.weights, workdir / "sae" / TRAINED
    if not weights and trained.is_file() and not config.overwrite:
        weights = os.fspath(trained)
    sae = digest_of_header(weights) if weights else ""
    look_at_names(workdir / "report", n_concepts, sae)
    read_imported(workdir, n_concepts)


def check_ranked(config: ml_collections.ConfigDict, n_concepts: int) -> None:
    """Refuses to rank by a concept that the SAE has not.

    Raises:
      UserError: it has not.
    """
    if config.measure.rank_concept >= n_concepts:
        raise UserError(
            f"measure.rank_concept={config.measure.rank_concept}: expected 0 to {n_concepts - 1},"
            " or -1 for no ranking; set --config.measure.rank_concept"
        )


def check_training(
    config: ml_collections.ConfigDict,
    workdir: AnyPath,
    n_images: int,
    encoder: Sizes,
) -> None:
    """What a training would find only once it has encoded its images, or at its end.

    Args:
      config: the experiment.
      workdir: where sae/ may be finished.
      n_images: of both arms.
      encoder: its width and grid.

    Raises:
      UserError: a mesh that does not divide, too few tokens, SAEs that do not fit.
    """
    if not _is_to_train(config, workdir):
        return
    train, width = config.train, encoder.width
    check_mesh(config, make_mesh(config.mesh.data, config.mesh.model))
    if train.init_from:
        found = look_at_parameters(train.init_from)
        expected = (width, train.n_concepts, train.n_candidates)
        if found != expected:
            raise UserError(
                f"train.init_from={train.init_from} has width, concepts and candidates {found},"
                f" expected {expected}; set --config.train.n_concepts and"
                " --config.train.n_candidates to match, or another --config.train.init_from"
            )
    elif train.supply == "memory" and n_images:
        n_tokens = n_images * min(_n_tokens(config, encoder), max(train.max_tokens // n_images, 1))
        if n_tokens < train.n_candidates:
            raise UserError(
                f"train.n_candidates={train.n_candidates}, but only {n_tokens} tokens of"
                f" {n_images} images will be there; lower --config.train.n_candidates, or raise"
                " --config.train.max_tokens"
            )
    if train.compare_with:
        flag = "--config.train.compare_with"
        found = look_at_rasae(train.compare_with, flag)
        if found != (width, train.n_concepts):
            raise UserError(
                f"{flag}={train.compare_with} has width and concepts {found}, expected"
                f" {(width, train.n_concepts)}; set it to a training of another seed"
            )
    if train.supply == "store":
        store = os.path.expanduser(train.token_store)
        check_workdir(store, "--config.train.token_store")


def bills_of_images(
    config: ml_collections.ConfigDict, workdir: AnyPath, n_images: int, name: str = ""
) -> list[Bill]:
    """What `generate` writes: a PNG an image. The set is the config's, or a folder in `workdir`."""
    name = name if "/" in name else f"images/{name or inputs.generated_name(config)}"
    pixels = 3 * config.generator.height * config.generator.width
    return _unless_finished(config, workdir / name, name, *(s * n_images * pixels for s in PNG))


def bills_of_training(
    config: ml_collections.ConfigDict,
    workdir: AnyPath,
    n_images: int,
    encoder: Sizes,
) -> list[Bill]:
    """What `train_sae` writes: checkpoints of parameters and two moments each, and a store."""
    if not _is_to_train(config, workdir):
        return []
    train, width = config.train, encoder.width
    n_tokens = n_images * _n_tokens(config, encoder)
    recipe = make_recipe(config, make_mesh(config.mesh.data, config.mesh.model), n_tokens)
    points = jax.ShapeDtypeStruct((train.n_candidates, width), jnp.float32)
    state = jax.eval_shape(functools.partial(fresh_state, config, recipe), points)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    n_saved = min(train.keep_checkpoints, math.ceil(recipe.n_steps / train.checkpoint_every))
    # The oldest goes when the newest is whole.
    least, most = CHECKPOINT[0] * size * n_saved, CHECKPOINT[1] * size * (n_saved + 1)
    bills = _unless_finished(config, workdir / "sae", "sae", least, most)
    if train.supply == "store":
        store = pathlib.Path(train.token_store).expanduser()
        bill = storage_bill(n_images, _n_tokens(config, encoder), width)
        if not (store / MANIFEST).is_file():
            bills += _unless_finished(config, store, "the token store", bill, bill)
    return bills


def bills_of_measures(
    config: ml_collections.ConfigDict,
    workdir: AnyPath,
    n_images: Mapping[str, int],
    encoder: Sizes,
) -> list[Bill]:
    """What `measure` writes: codes of all tokens while it works, of all images, and sketches."""
    bills = []
    for name, n in n_images.items():
        size = n * _n_tokens(config, encoder) * config.train.n_active * CODE_BYTES
        # Sketches of patches stand in the shards and in the artifact, until the shards go.
        sizes = [share * size + 2 * n * copies.bytes_an_image(*_patches(config, encoder))
                 for share in CODES]  # fmt: skip
        bills += _unless_finished(config, workdir / "measures" / name, f"measures/{name}", *sizes)
    return bills


def check_disk(bills: Sequence[Bill]) -> None:
    """Holds what will be written to the room there is, disk by disk.

    Raises:
      UserError: clearly too little. A warning where it may be too little.
    """
    disks: dict[int, list[Bill]] = {}
    for bill in bills:
        disks.setdefault(os.stat(_existing(bill.folder)).st_dev, []).append(bill)
    for parts in disks.values():
        place = _existing(parts[0].folder)
        free = shutil.disk_usage(place).free
        least, most = sum(bill.least for bill in parts), sum(bill.most for bill in parts)
        told = ", ".join(f"{bill.what} {_size(bill.least)}" for bill in parts)
        if least > free:
            raise UserError(
                f"the disk of {place} has {_size(free)} free, expected at least"
                f" {_size(least)} ({told}): free space, choose another --workdir, or lower"
                " --config.train.keep_checkpoints or --limit"
            )
        if most > free:
            logging.warning(
                "the disk of %s has %s free, which may be too little: at least %s will be"
                " written, at most %s (%s)",
                *(place, _size(free), _size(least), _size(most), told),
            )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e7 else f"{n_bytes / 1e3:.0f} kB"


def _unless_finished(
    config: ml_collections.ConfigDict, folder: AnyPath, what: str, least: float, most: float
) -> list[Bill]:
    """The bill without what an interrupted run left there; none for what is finished."""
    path = os.fspath(folder)
    if is_remote(path) or ((folder / MANIFEST).exists() and not config.overwrite):
        return []
    files = (file for file in pathlib.Path(path).rglob("*") if file.is_file())
    there = sum(file.stat().st_size for file in files)
    return [Bill(what, path, max(least - there, 0.0), max(most - there, 0.0))]


def _existing(folder: str) -> pathlib.Path:
    path = pathlib.Path(folder).absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def _is_to_train(config: ml_collections.ConfigDict, workdir: AnyPath) -> bool:
    is_finished = (workdir / "sae" / MANIFEST).exists() and not config.overwrite
    return not config.sae.weights and not is_finished


def _patches(config: ml_collections.ConfigDict, encoder: Sizes) -> tuple[int, int, int]:
    """Rows and columns of patches of an image, and their width."""
    grid = encoder.grid(config.encoder.crop, config.encoder.crop)
    return grid.h, grid.w, encoder.width


def _n_tokens(config: ml_collections.ConfigDict, encoder: Sizes) -> int:
    """Tokens of an image."""
    crop = config.encoder.crop
    return encoder.grid(crop, crop).n_tokens
