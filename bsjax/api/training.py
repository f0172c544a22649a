"""train_sae: images or tokens -> a sparse autoencoder, by the steps of `bsjax train_sae`."""

import hashlib
import os
import pathlib
import tempfile
from typing import Any

import numpy as np
from etils import epath

from bsjax import presets
from bsjax.api.arguments import naming_arguments
from bsjax.api.images import list_images
from bsjax.api.sae import SAE, as_numbers
from bsjax.convert.rasae import TRAINED, load_trained
from bsjax.core import lock
from bsjax.core.artifacts import begin_stage
from bsjax.core.config import flatten, select, validate
from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh
from bsjax.experiment import tokens as supplies
from bsjax.experiment.recipe import check_mesh
from bsjax.stages.train_sae import train_on

# Settings that name other ways to get tokens than the arguments of `train_sae`.
NOT_HERE = ("supply", "token_store", "shard_images")


def train_sae(
    data: Any,
    encoder: Any = None,
    *,
    seed: int = 0,
    workdir: str | os.PathLike | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> SAE:
    """Trains an archetypal sparse autoencoder (RA-SAE, arXiv:2502.12892).

    Args:
      data: tokens, an array [N, D] or [n, T, D] of floats; or, with `encoder`, images as
        `bsjax.measure` takes them.
      encoder: from `bsjax.load_encoder`, where data are images.
      seed: of candidates, parameters and order of the tokens.
      workdir: folder to keep sae/ in, with checkpoints: an interrupted call goes on there.
      overwrite: make anew what another call made in `workdir`.
      **settings: of the training, as `bsjax/presets.py` lists them with their defaults and units
        under train: n_concepts, n_candidates, n_active, steps, tokens_per_step,
        peak_learning_rate, loss, ...

    Returns:
      The trained SAE, with its threshold.

    Raises:
      UserError: no such setting, a value that cannot be, too few tokens, values that are not
        finite, a training that diverged.
    """
    config = presets.experiment()
    config.seed = seed
    for name, value in settings.items():
        known = [key for key in config.train if key not in NOT_HERE]
        if name not in known:
            raise UserError(
                f"{name}={value!r}: no such setting; expected one of {', '.join(known)}"
            )
        try:
            config.train[name] = value
        except TypeError as error:
            expected = type(config.train[name]).__name__
            raise UserError(f"{{{name}}}={value!r}: expected a {expected}", name) from error
    with naming_arguments():
        if encoder is None:
            tokens = _as_tokens(data)
            parents = {"tokens": hashlib.sha256(np.ascontiguousarray(tokens)).hexdigest()[:16]}
            notes = []
        else:
            config.encoder.variant, config.encoder.weights = encoder.variant, encoder.source
            config.encoder.resize, config.encoder.crop = encoder.resize, encoder.crop
            config.encoder.dtype = encoder.dtype
            listed = list_images(data)
            parents = {"encoder": encoder.digest, "images": listed.digest}
            notes = encoder.notes
        # Of the encoder everything is known: it is loaded.
        validate(config, needs_images=False, sections=("train", "mesh"))
        mesh = make_mesh()
        check_mesh(config, mesh)
        if encoder is not None:
            records = listed.images.records
            tokens = supplies.collect_tokens(config, records, encoder)
        supply = supplies.supply_of_array(config, tokens, mesh)
        if workdir is not None:
            root = pathlib.Path(workdir).expanduser()
            with lock.hold(root, "train_sae"):
                return _train(config, root, supply, mesh, parents, notes, overwrite)
        with tempfile.TemporaryDirectory(prefix="bsjax-") as folder:
            return _train(config, pathlib.Path(folder), supply, mesh, parents, notes, overwrite)


def _train(config, root, supply, mesh, parents, notes, overwrite) -> SAE:
    folder = epath.Path(root) / "sae"
    made_from = select(config, ("seed", "train"))
    if "encoder" in parents:
        made_from |= {k: v for k, v in flatten(config).items() if k.startswith("encoder.")}
    done = begin_stage(
        folder, config=made_from, parents=parents, overwrite=overwrite, stage="train_sae"
    )
    if done is None:
        train_on(config, folder, supply, mesh, made_from, parents, notes)
    trained = load_trained(pathlib.Path(folder / TRAINED))
    return SAE(trained, trained.threshold)


def _as_tokens(data: Any) -> np.ndarray:
    tokens = as_numbers(data, "data")
    if tokens.ndim not in (2, 3) or not tokens.size:
        raise UserError(
            f"{{data}} has the shape {list(tokens.shape)}; expected tokens [N, D] or [n, T, D], or"
            " images together with {encoder}; give one of these",
            "data",
            "encoder",
        )
    tokens = tokens.reshape(-1, tokens.shape[-1]).astype(np.float32, copy=False)
    n_bad = int((~np.isfinite(tokens)).any(axis=1).sum())
    if n_bad:
        raise UserError(
            f"{{data}} has values that are not finite in {n_bad} of {len(tokens)} tokens; remove"
            " these",
            "data",
        )
    return tokens
