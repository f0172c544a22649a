"""A generator and its parameters, from repositories in the hub's layout or from a seed."""

import functools
import glob
import hashlib
import importlib
import json
import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import SingleDeviceSharding

from bsjax.convert.config_keys import read_object
from bsjax.convert.hub import download_snapshot, list_repository
from bsjax.convert.tables import convert_by_name, match_names
from bsjax.convert.tensors import TensorSource, choose_files, open_folder, refuse_kind, shards_of
from bsjax.core import checksums, families
from bsjax.core.artifacts import is_remote, read_json, write_json
from bsjax.core.errors import UserError
from bsjax.core.mesh import place_shapes, put
from bsjax.core.paths import AnyPath
from bsjax.generators.modules import DIFFUSION_STEMS, TRANSFORMERS_STEMS
from bsjax.generators.protocol import MAIN, Generator, Settings, flag_of
from bsjax.generators.random_weights import RANDOM, random_params
from bsjax.generators.released import RELEASED
from bsjax.generators.repository import (
    INDEX,
    SMALL_FILES,
    read_config,
    tokenizer_class,
    with_named_class,
)
from bsjax.generators.tokenizers import HubTokenizer

CACHE, CACHE_SCHEMA = "generator.json", 3
# Imported when asked for: other stages need neither diffusers nor transformers.
FAMILIES = {name: family.place for name, family in families.FAMILIES.items()}


class Opened(NamedTuple):
    """A generator whose parameters are not read yet."""

    generator: Generator
    digest: str  # tells its weights and configs from others
    read_params: Callable[..., dict[str, Any]]  # names of components -> host arrays
    # (names of components, shardings of their parameters) -> arrays on the devices
    place_params: Callable[[Sequence[str], Any], dict[str, Any]]
    rebuild: Callable[[Settings], Generator]  # the same system, drawn otherwise
    roots: Mapping[str, pathlib.Path] = {}  # where the repositories lie
    configs: Mapping[str, Mapping[str, Any]] = {}
    tokenizer_classes: Mapping[str, str] = {}

    def in_float32(self) -> Generator:
        """The same generator, computing in float32."""
        return self.rebuild(self.generator.settings._replace(dtype="float32"))


def family_of(name: str) -> Any:
    """The class of a family, or of a plug-in named module:Class.

    Raises:
      UserError: neither.
    """
    module, _, attribute = FAMILIES.get(name, name).partition(":")
    if not attribute:
        raise UserError(
            f"generator.name={name!r}: expected one of {', '.join(FAMILIES)}, or module:Class; set"
            " --config.generator.name"
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"generator.name={name!r} cannot be imported ({error}); install it, or set"
            " --config.generator.name"
        ) from error


@functools.cache
def build(name: str, variant: str, settings: Settings) -> Generator:
    """A generator of a released shape, without weights and with bytes for tokens.

    Raises:
      UserError: no such family or variant.
    """
    family = family_of(name)
    released = RELEASED.get(name) or getattr(family, "RELEASED", {})
    if family.CONFIGS and variant not in released:
        raise UserError(
            f"generator.variant={variant!r}: expected one of {', '.join(released)}; set"
            " --config.generator.variant"
        )
    return family(released.get(variant, {}), settings)


def open_generator(
    name: str,
    variant: str,
    weights: Mapping[str, str],
    settings: Settings,
    revision: str | None = None,
) -> Opened:
    """Finds all components and checks that they are there; reads no tensor.

    Args:
      name: a key of `FAMILIES`, or module:Class.
      variant: a key of `RELEASED[name]`, or of the class's RELEASED; only for random weights.
      weights: repository ("" is the main one) -> hub id or folder, or random:SEED for the main one.
        One that is absent or empty is the main one.
      settings: how images are drawn.
      revision: of the main repository on the hub.

    Raises:
      UserError: offline, a component is missing, weights of another model, damaged files.
    """
    main = weights[MAIN]
    if main.startswith(RANDOM):
        generator = build(name, variant, settings)
        read = functools.partial(random_params, generator, main)
        return Opened(
            generator, f"{variant} {main}", read, functools.partial(_place, read),
            functools.partial(build, name, variant),
        )  # fmt: skip
    family = family_of(name)
    roots = _fetch(family, weights, revision)
    flags = {repository: _flag(weights, repository) for repository in roots}
    index = {key: read_object(root / INDEX, {}) for key, root in roots.items()}
    configs = {
        key: with_named_class(
            read_config(roots[repository] / folder, flags[repository]), index[repository], folder
        )
        for key, (repository, folder) in family.CONFIGS.items()
    }
    tokenizers = {
        key: HubTokenizer(
            roots[repository] / folder,
            tokenizer_class(index[repository], roots[repository] / folder, default),
            flags[repository],
        )
        for key, (repository, folder, default) in family.TOKENIZERS.items()
    }

    def rebuild(settings):
        try:
            return family(configs, settings, tokenizers)
        except UserError as error:
            # A family names the flag of each repository; of the main one where no other is set.
            text = str(error)
            for repository, flag in flags.items():
                text = text.replace(flag_of(repository), flag)
            raise UserError(text) from error

    generator = rebuild(settings)
    sources = {
        key: open_folder(roots[each.repository] / each.folder, each.stems, flags[each.repository])
        for key, each in generator.components.items()
    }
    check_names(generator, sources, flags)
    classes = {key: tokenizer.class_name for key, tokenizer in tokenizers.items()}
    identity = [configs, classes, {key: quick_digest(source) for key, source in sources.items()}]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    read = functools.partial(_read_params, generator, sources)
    place = functools.partial(_place, read)
    return Opened(generator, digest, read, place, rebuild, roots, configs, classes)


def save_cache(opened: Opened, folder: AnyPath, weights: Mapping[str, str]) -> None:
    """Writes the converted generator: configs, tokenizers, parameters, a component at a time.

    Last of all what calls it finished, with size and sha256 of every file.
    """
    (folder / CACHE).unlink(missing_ok=True)
    for key, (repository, place, _) in opened.generator.TOKENIZERS.items():
        for source in (opened.roots[repository] / place).iterdir():
            target = folder / "tokenizers" / key / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    with ocp.StandardCheckpointer() as checkpointer:
        for name in opened.generator.components:
            checkpointer.save(_cached(folder, name), opened.read_params([name])[name], force=True)
            checkpointer.wait_until_finished()
    content = {
        "schema": CACHE_SCHEMA,
        "digest": opened.digest,
        "weights": weights,
        "configs": opened.configs,
        "tokenizer_classes": opened.tokenizer_classes,
    }
    if not is_remote(folder):  # object stores keep checksums, and hosts read parts of files alone
        proofs = checksums.prove_files(folder, checksums.list_files(folder))
        content["files"] = {name: proof._asdict() for name, proof in proofs.items()}
    write_json(folder / CACHE, checksums.seal(content))


def open_cache(
    name: str, folder: AnyPath, settings: Settings, weights: Mapping[str, str]
) -> Opened:
    """A generator that `save_cache` wrote; needs none of its repositories.

    Parameters are read where they are to lie: a device's part of a divided array, no more.

    Raises:
      UserError: it was made from other weights, or a file is not what `save_cache` wrote.
    """
    content, family = read_json(folder / CACHE), family_of(name)
    if not isinstance(content, dict) or content.get("schema") != CACHE_SCHEMA:
        raise UserError(
            f"{folder} was converted by another version of bsjax: run `bsjax convert --overwrite`"
        )
    if not checksums.is_sealed(content):
        raise UserError(f"{folder / CACHE} is damaged; run `bsjax convert --overwrite`")
    if content["weights"] != dict(weights):
        raise UserError(
            f"{folder} was converted from {content['weights']}, the config names {dict(weights)}:"
            " run `bsjax convert --overwrite`, or choose another --config.generator.set"
        )
    checksums.check_files(folder, content.get("files", {}), None, "run `bsjax convert --overwrite`")
    tokenizers = {
        key: HubTokenizer(pathlib.Path(folder / "tokenizers" / key), class_name)
        for key, class_name in content["tokenizer_classes"].items()
    }

    def rebuild(settings):
        return family(content["configs"], settings, tokenizers)

    generator = rebuild(settings)

    def restore(names, shapes):
        with ocp.StandardCheckpointer() as checkpointer:
            return {
                name: checkpointer.restore(_cached(folder, name), shapes[name]) for name in names
            }

    def place(names, shardings):
        return restore(names, place_shapes(abstract_params(generator, names), shardings))

    def read(names=None):
        names = names or list(generator.components)
        here = SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
        shapes = abstract_params(generator, names)
        placed = place(names, jax.tree.map(lambda _: here, shapes))
        return jax.tree.map(np.asarray, placed)

    return Opened(generator, content["digest"], read, place, rebuild)


def _cached(folder: AnyPath, name: str) -> str:
    path = folder / "params" / name
    return os.fspath(path) if is_remote(path) else os.path.abspath(path)


def _place(read: Callable[..., dict[str, Any]], names: Sequence[str], shardings: Any) -> Any:
    """A component at a time: the host never holds all."""
    return {name: jax.tree.map(put, read([name])[name], shardings[name]) for name in names}


def _read_params(
    generator: Generator, sources: Mapping[str, TensorSource], names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Host arrays in the dtype that they are used in."""
    params, dtype = {}, jnp.dtype(generator.settings.dtype)
    for key in names or generator.components:
        each, source = generator.components[key], sources[key]
        params[key] = convert_by_name(
            source, _cast(each.shapes, dtype), str(source.files[0].parent), each.renames,
            each.ignored,
        )  # fmt: skip
    return params


def check_names(
    generator: Generator,
    sources: Mapping[str, TensorSource],
    flags: Mapping[str, str] | None = None,
) -> None:
    """Holds all components' names and shapes, as the files' headers have them, to the modules.

    Args:
      generator: its modules.
      sources: component -> its tensors.
      flags: repository -> the flag that sets it, for messages; None: each has its own.

    Raises:
      UserError: tensors too many, too few or of another shape, in whatever component.
    """
    for key, each in generator.components.items():
        source = sources[key]
        what = str(source.files[0].parent)
        flag = (flags or {}).get(each.repository, flag_of(each.repository))
        matches = match_names(
            source.shapes, each.shapes, what, each.renames, each.ignored,
            f"set {flag} to weights of the networks that its config.json describes",
        )  # fmt: skip
        for name in sorted(set(matches.values()) & set(source.unreadable)):
            refuse_kind(source.files[0].parent, name, source.unreadable[name])


def abstract_params(generator: Generator, names: Sequence[str]) -> dict[str, Any]:
    """Shapes of components' parameters in the dtype that they are used in."""
    dtype = jnp.dtype(generator.settings.dtype)
    return {name: _cast(generator.components[name].shapes, dtype) for name in names}


def quick_digest(source: TensorSource, n_blocks: int = 64, block: int = 1 << 16) -> str:
    """Tells checkpoints of gigabytes apart in no time: sizes and blocks spread over the files."""
    sha = hashlib.sha256()
    for path in source.files:
        size = path.stat().st_size
        sha.update(str(size).encode())
        with path.open("rb") as handle:
            for place in np.linspace(0, max(size - block, 0), n_blocks).astype(int):
                handle.seek(place)
                sha.update(handle.read(block))
    return sha.hexdigest()[:16]


def _cast(shapes: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)


def _flag(weights: Mapping[str, str], repository: str) -> str:
    """The flag to set for a repository; one that is not named comes from the main one."""
    return flag_of(repository if weights.get(repository) else MAIN)


def _fetch(family, weights: Mapping[str, str], revision: str | None) -> dict[str, pathlib.Path]:
    """Where each repository of a family lies on this machine; on the way, what it lacks is fetched.

    Configs and vocabularies come first; then, of all weight files that a repository lists, those
    that the reader would choose.
    """
    networks: dict[str, set[str]] = {}  # hub id or folder -> folders in it
    vocabularies: dict[str, set[str]] = {}
    repositories: dict[str, str] = {}  # by the names that the family gives them
    for folders, entries in ((networks, family.CONFIGS), (vocabularies, family.TOKENIZERS)):
        for repository, folder, *_ in entries.values():
            name = repositories[repository] = weights.get(repository) or weights[MAIN]
            folders.setdefault(name, set()).add(folder)
    roots = {}
    for repository, name in repositories.items():
        flag, path = _flag(weights, repository), pathlib.Path(name).expanduser()
        if name in roots:
            continue
        if path.is_dir():
            roots[name] = path
            continue
        if path.is_absolute() or name.count("/") != 1:
            raise UserError(
                f"{flag}={name}: expected a hub id (owner/name), a folder in the hub's layout, or"
                " random:SEED; set it to one"
            )
        at = revision if name == weights[MAIN] else None
        folders = sorted(networks.get(name, set()))
        everywhere = sorted({*folders, *vocabularies.get(name, ())})
        small = (f"{folder}/{kind}" for folder in everywhere for kind in SMALL_FILES)
        roots[name] = download_snapshot(name, flag, (INDEX, *small), at)
        listing = list_repository(name, flag, at)
        if listing is None:  # what the cache has must do
            continue
        chosen = plan_download(listing, folders, roots[name])
        size = sum(listing[file] for file in chosen)
        logging.info("%s: %d weight files, %.2f GB", name, len(chosen), size / 1e9)
        if chosen:
            roots[name] = download_snapshot(name, flag, tuple(map(glob.escape, chosen)), at)
    return {repository: roots[name] for repository, name in repositories.items()}


def plan_download(
    listing: Collection[str], folders: Sequence[str], root: pathlib.Path
) -> list[str]:
    """The weight files that reading these folders will take.

    Args:
      listing: paths of all files of the repository.
      folders: of its networks; a scheduler's has none.
      root: where its small files lie already, among them the indexes of shards.

    Raises:
      UserError: a damaged index.
    """
    chosen = []
    for folder in folders:
        names = [path.removeprefix(f"{folder}/") for path in listing
                 if path.startswith(f"{folder}/")]  # fmt: skip
        for file in choose_files(names, (*DIFFUSION_STEMS, *TRANSFORMERS_STEMS)) or ():
            shards = shards_of(root / folder / file) if file.endswith(".json") else [file]
            chosen += [f"{folder}/{shard}" for shard in shards]
    return chosen
