"""A generator and its parameters, from repositories in the hub's layout or from a seed."""

import functools
import hashlib
import importlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import SingleDeviceSharding

from bsjax.convert.hub import download_snapshot
from bsjax.convert.tables import convert_by_name
from bsjax.convert.tensors import TensorSource, open_folder
from bsjax.core.artifacts import is_remote, read_json, write_json
from bsjax.core.errors import UserError
from bsjax.core.mesh import place_shapes, put
from bsjax.generators.protocol import MAIN, Generator, Settings, flag_of
from bsjax.generators.released import RELEASED
from bsjax.generators.tokenizers import HubTokenizer

RANDOM = "random:"
CACHE = "generator.json"
# Imported when asked for: other stages need neither diffusers nor transformers.
FAMILIES = {
    "stable_diffusion": "bsjax.generators.stable_diffusion:StableDiffusion",
    "pixart": "bsjax.generators.pixart:PixArt",
    "kandinsky": "bsjax.generators.kandinsky:Kandinsky",
}


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
        raise UserError(f"generator.name={name!r} cannot be imported ({error})") from error


@functools.cache
def build(name: str, variant: str, settings: Settings) -> Generator:
    """A generator of a released shape, without weights and with bytes for tokens.

    Raises:
      UserError: no such family or variant.
    """
    family = family_of(name)
    released = RELEASED.get(name, {})
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
      variant: a key of `RELEASED[name]`; only for random weights.
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
        read = functools.partial(_random_params, generator, main)
        return Opened(
            generator, f"{variant} {main}", read, functools.partial(_place, read),
            functools.partial(build, name, variant),
        )  # fmt: skip
    family = family_of(name)
    roots = _fetch(family, weights, revision)
    configs = {
        key: _read_config(roots[repository] / folder, flag_of(repository))
        for key, (repository, folder) in family.CONFIGS.items()
    }
    tokenizers = {
        key: HubTokenizer(roots[repository] / folder, class_name)
        for key, (repository, folder, class_name) in family.TOKENIZERS.items()
    }

    def rebuild(settings):
        return family(configs, settings, tokenizers)

    generator = rebuild(settings)
    sources = {
        key: open_folder(roots[each.repository] / each.folder, each.stems, flag_of(each.repository))
        for key, each in generator.components.items()
    }
    identity = [configs, {key: quick_digest(source) for key, source in sources.items()}]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    read = functools.partial(_read_params, generator, sources)
    place = functools.partial(_place, read)
    return Opened(generator, digest, read, place, rebuild, roots, configs)


def save_cache(opened: Opened, folder: epath.Path, weights: Mapping[str, str]) -> None:
    """Writes the converted generator: configs, tokenizers, parameters, a component at a time."""
    for key, (repository, place, _) in opened.generator.TOKENIZERS.items():
        for source in (opened.roots[repository] / place).iterdir():
            target = folder / "tokenizers" / key / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    with ocp.StandardCheckpointer() as checkpointer:
        for name in opened.generator.components:
            checkpointer.save(_cached(folder, name), opened.read_params([name])[name], force=True)
            checkpointer.wait_until_finished()
    content = {"digest": opened.digest, "weights": weights, "configs": opened.configs}
    write_json(folder / CACHE, content)


def open_cache(
    name: str, folder: epath.Path, settings: Settings, weights: Mapping[str, str]
) -> Opened:
    """A generator that `save_cache` wrote; needs none of its repositories.

    Parameters are read where they are to lie: a device's part of a divided array, no more.

    Raises:
      UserError: it was made from other weights.
    """
    content, family = read_json(folder / CACHE), family_of(name)
    if content["weights"] != dict(weights):
        raise UserError(
            f"{folder} was converted from {content['weights']}, the config names {dict(weights)}:"
            " run `bsjax convert --overwrite`, or choose another --config.generator.set"
        )
    tokenizers = {
        key: HubTokenizer(pathlib.Path(folder / "tokenizers" / key), class_name)
        for key, (_, _, class_name) in family.TOKENIZERS.items()
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


def _cached(folder: epath.Path, name: str) -> str:
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


def _fetch(family, weights: Mapping[str, str], revision: str | None) -> dict[str, pathlib.Path]:
    """Where each repository of a family lies on this machine."""
    needed: dict[str, set[str]] = {}  # repository -> folders
    entries = [*family.CONFIGS.values(), *(entry[:2] for entry in family.TOKENIZERS.values())]
    for repository, folder in entries:
        needed.setdefault(repository, set()).add(folder)
    roots = {}
    for repository, folders in needed.items():
        name, flag = weights.get(repository) or weights[MAIN], flag_of(repository)
        path = pathlib.Path(name).expanduser()
        if path.is_dir():
            roots[repository] = path
            continue
        if path.is_absolute() or name.count("/") != 1:
            raise UserError(
                f"{flag}={name}: expected a hub id (owner/name), a folder in the hub's layout, or"
                " random:SEED"
            )
        files = ("*.json", "*.txt", "*.model", "*.safetensors")
        patterns = tuple(f"{folder}/{pattern}" for folder in sorted(folders) for pattern in files)
        at = revision if name == weights[MAIN] else None
        root = download_snapshot(name, flag, patterns, at)
        bare = [folder for folder in folders if _has_no_weights(root / folder)]
        if bare:
            patterns = tuple(f"{folder}/*.bin" for folder in bare)
            root = download_snapshot(name, flag, patterns, at)
        roots[repository] = root
    return roots


def _has_no_weights(folder: pathlib.Path) -> bool:
    """Whether a component's folder came without safetensors; some repositories have .bin alone."""
    return (folder / "config.json").is_file() and not list(folder.glob("*.safetensors"))


def _read_config(folder: pathlib.Path, flag: str) -> dict[str, Any]:
    names = ("config.json", "scheduler_config.json")
    for name in names:
        if (folder / name).is_file():
            try:
                return json.loads((folder / name).read_text())
            except ValueError as error:
                raise UserError(f"{folder / name} is no JSON ({error}); fetch it again") from error
    raise UserError(f"{folder} has no {names[0]}; set {flag} to a complete repository")


def _random_params(
    generator: Generator, weights: str, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Parameters drawn from a seed, each with its fan-in's scale."""
    try:
        seed = int(weights.removeprefix(RANDOM))
    except ValueError as error:
        raise UserError(
            f"{flag_of(MAIN)}={weights}: expected random:SEED with a whole number"
        ) from error
    dtype = jnp.dtype(generator.settings.dtype)
    return {
        key: _random_tree(generator.components[key].shapes, (seed, zlib.crc32(key.encode())), dtype)
        for key in names or generator.components
    }


def _random_tree(shapes: Any, seed: tuple[int, int], dtype: Any) -> Any:
    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("scale"):
            return np.ones(leaf.shape, dtype)
        if name.endswith("bias"):
            return np.zeros(leaf.shape, dtype)
        fan_in = np.prod(leaf.shape[:-1]) if name.endswith("kernel") else leaf.shape[-1]
        rng = np.random.default_rng([*seed, zlib.crc32(name.encode())])
        return (rng.standard_normal(leaf.shape, np.float32) / np.sqrt(fan_in)).astype(dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
