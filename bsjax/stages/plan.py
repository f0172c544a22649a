"""plan: what a run costs before anyone pays for a chip.

Compiles the very step that a stage runs, for TPUs and GPUs that this machine need not have and for
its own devices; reads memory, FLOPs, bytes accessed and communication from the executable; prints
roofline times for each mesh shape, best first. Reads the config alone; writes plan.json.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding

from bsjax.analysis.engine import FIRST_KEPT, jit_measure
from bsjax.core.artifacts import as_json, write_json
from bsjax.core.config import controls_of
from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh, over_data, place_shapes, replicated
from bsjax.core.paths import AnyPath
from bsjax.core.precision import matmul_precision
from bsjax.core.rng import seed_key
from bsjax.experiment import inputs
from bsjax.experiment.encoder import encoder_to_plan
from bsjax.experiment.recipe import check_mesh, fresh_state, jit_step, make_recipe
from bsjax.experiment.text_phase import BATCH as TEXT_BATCH
from bsjax.experiment.text_phase import jit_encode, text_shardings
from bsjax.generators.loading import abstract_params as abstract_generator
from bsjax.generators.protocol import Generator
from bsjax.roofline.chips import (
    CHIPS,
    GPU_SHARE,
    Chip,
    devices_of,
    roofline,
    share_of_chip,
    usable_memory,
    weight_of,
)
from bsjax.roofline.compiled import cost_of
from bsjax.roofline.gpus import compile_anywhere, is_gpu
from bsjax.sae.train_step import CANDIDATES, TOKENS, shardings
from bsjax.stages.generate import jit_sample
from bsjax.stats import streaming

STAGES = ("train_sae", "generate", "measure")
DATA_PARALLEL = ("generate", "measure")  # stages without a choice of mesh


@dataclasses.dataclass
class Row:
    """One mesh shape on one topology; bytes and seconds are those of one device and one step."""

    part: str  # of the stage: "text" or "images" of generate, else ""
    topology: str
    n_chips: int
    data: int
    model: int
    argument_gb: float
    temporary_gb: float
    peak_gb: float
    memory_gb: float  # that the device has; nan where it is not known
    fits: bool
    teraflops: float
    traffic_gb: float
    fallback_gb: float  # bytes accessed by the rare branches, not counted
    exchange: dict[str, float]  # "kind over n" -> GB
    compute_ms: float
    memory_ms: float
    exchange_ms: float
    roofline_ms: float
    full_precision_ms: float  # roofline of the last steps (train_sae), else nan
    hours: float  # of the whole run, nan where its length is not known
    images: int = 0  # a step of all devices (generate, measure)
    options: str = ""  # of the compiler, without which it failed

    @property
    def images_per_second(self) -> float:
        """Of one chip, by roofline."""
        return self.images / self.n_chips / self.roofline_ms * 1e3 if self.images else np.nan


def plan(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
    """Prints and writes the table.

    Raises:
      UserError: nothing to compile for, or no mesh shape that the config allows.
    """
    stage = config.plan.stage
    if stage not in STAGES:
        raise UserError(
            f"--stage={stage}: expected one of {', '.join(STAGES)}; set --stage or"
            " --config.plan.stage"
        )
    if stage == "generate" and config.generator.name == "none":
        raise UserError("generator.name=none: nothing to compile; use a config with a generator")
    places = [(name, devices_of(name)) for name in filter(None, config.plan.topology.split(","))]
    for _, devices in places:
        _parts(config, devices)  # a mesh that cannot be is told before anything is compiled
    if config.plan.local:
        here = f"here: {jax.device_count()} x {jax.devices()[0].platform}"
        try:
            _parts(config, jax.devices())
            places.append((here, jax.devices()))
        except UserError as error:
            if not places:
                raise
            logging.info("no row of this machine: %s", error)
    rows = [row for topology, devices in places for row in _rows_of(config, topology, devices)]
    if not rows:
        raise UserError(
            "nothing to plan for; set --topology=v5e:2x4 or h100:8 (several: with commas)"
        )
    sys.stdout.write(render(rows, stage))
    write_json(workdir / "plan.json", {"stage": stage, "rows": [_as_json(row) for row in rows]})
    logging.info("written to %s", workdir / "plan.json")


def _rows_of(config, topology: str, devices: Sequence[jax.Device]) -> list[Row]:
    """A row a mesh shape, best first; shapes that do not divide the problem are left out."""
    chip, n_chips = None, len(devices)
    if devices[0].device_kind in CHIPS or devices[0].platform == "tpu":
        chip, n_chips = share_of_chip(devices)
    rows, refused = [], []
    for part, mesh in _parts(config, devices):
        try:
            attempts = _attempts(config, part, mesh)
        except UserError as error:
            refused.append(str(error))
            continue
        for images, lower in attempts:
            logging.info("compiling %s for %s, mesh %s, %d images", part or config.plan.stage,
                         topology, dict(mesh.shape), images)  # fmt: skip
            rows.append(_row(config, part, topology, n_chips, chip, mesh, images, lower))
            if rows[-1].fits:
                break
    if not rows:
        raise UserError(f"{topology}: no mesh shape divides the problem: {refused[0]}")
    return sorted(rows, key=lambda row: (row.part, not row.fits, row.hours, row.roofline_ms))


def _parts(config, devices) -> list[tuple[str, Mesh]]:
    """What is compiled on which mesh: all shapes of it, unless the config fixes one."""
    n, (data, model) = len(devices), (config.mesh.data, config.mesh.model)
    if config.plan.stage == "measure":
        return [("", make_mesh(-1, 1, devices))]
    if config.plan.stage == "generate":
        parts = [("images", make_mesh(-1, 1, devices))]
        if inputs.generator_to_plan(config).TEXT_COMPONENTS:
            parts.append(("text", make_mesh(1, -1, devices)))
        return parts
    if config.plan.fixed_mesh:
        return [("", make_mesh(data, model, devices))]
    return [("", make_mesh(n // size, size, devices)) for size in range(1, n + 1) if n % size == 0]


def _attempts(config, part: str, mesh: Mesh) -> list[tuple[int, dict[str, Callable[[], Any]]]]:
    """(images per step, what lowers each kind of step), to be tried until one fits."""
    if config.plan.stage != "generate":
        images = inputs.batch_size(config, mesh) if config.plan.stage == "measure" else 0
        return [(images, _lowering(config, mesh))]
    generator = inputs.generator_to_plan(config)
    if part == "text":
        return [(0, {"usual": functools.partial(_lower_text, generator, mesh)})]
    images = inputs.images_a_step(config, mesh)
    sizes = [images]
    while config.generator.batch_per_device == -1 and sizes[-1] > mesh.shape["data"]:
        sizes.append(sizes[-1] // 2)
    return [
        (size, {"usual": functools.partial(_lower_generate, generator, mesh, size)})
        for size in sizes
    ]


def _lowering(config, mesh: Mesh) -> dict[str, Callable[[], Any]]:
    """What lowers each kind of step: "usual", and "full" if the last steps are others."""
    if config.plan.stage == "measure":
        return {"usual": functools.partial(_lower_measure, config, mesh)}
    check_mesh(config, mesh)
    made = make_recipe(config, mesh, config.plan.epoch_tokens)
    objectives = {"usual": made.low if made.n_low else made.full}
    if 0 < made.n_low < made.n_steps and made.low != made.full:
        objectives["full"] = made.full
    return {
        kind: functools.partial(_lower_train, config, mesh, made, objective)
        for kind, objective in objectives.items()
    }


def _lower_train(config, mesh: Mesh, made, objective) -> Any:
    train = config.train
    width = encoder_to_plan(config).width

    def shape(dims, spec):
        return jax.ShapeDtypeStruct(dims, jnp.float32, sharding=NamedSharding(mesh, spec))

    C = shape((train.n_candidates, width), CANDIDATES)
    tokens = shape((train.accumulate, train.tokens_per_step // train.accumulate, width), TOKENS)
    state = jax.eval_shape(functools.partial(fresh_state, config, made), C)
    state = place_shapes(state, shardings(state, mesh))
    step = jit_step(made, objective, state, mesh, config.train.full_precision)
    return step.lower(state, tokens, C)


def _lower_generate(generator: Generator, mesh: Mesh, n_images: int) -> Any:
    everywhere, divided = replicated(mesh), over_data(mesh)
    names = [name for name in generator.components if name not in generator.TEXT_COMPONENTS]
    params = abstract_generator(generator, names)
    params = place_shapes(params, jax.tree.map(lambda _: everywhere, params))
    batch = generator.abstract_prompts(n_images)
    batch = place_shapes(batch, jax.tree.map(lambda _: divided, batch))
    key = jax.eval_shape(lambda: seed_key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere)
    indices = jax.ShapeDtypeStruct((n_images,), jnp.int32, sharding=divided)
    return jit_sample(generator, mesh).lower(params, key, batch, indices)


def _lower_text(generator: Generator, mesh: Mesh) -> Any:
    everywhere = replicated(mesh)
    params = abstract_generator(generator, generator.TEXT_COMPONENTS)
    params = place_shapes(params, text_shardings(generator, params, mesh))
    batch = generator.abstract_tokens(TEXT_BATCH)
    batch = place_shapes(batch, jax.tree.map(lambda _: everywhere, batch))
    return jit_encode(generator, mesh).lower(params, batch)


def _lower_measure(config, mesh: Mesh) -> Any:
    encoder = encoder_to_plan(config)
    crop, n_concepts = config.encoder.crop, config.train.n_concepts
    grid = encoder.grid(crop, crop)
    n_images = inputs.batch_size(config, mesh)
    everywhere, divided = replicated(mesh), over_data(mesh)

    def whole(tree):
        return place_shapes(tree, jax.tree.map(lambda _: everywhere, tree))

    images = jax.ShapeDtypeStruct((n_images, crop, crop, 3), jnp.uint8, sharding=divided)
    rows = jax.ShapeDtypeStruct((n_images,), jnp.int32, sharding=divided)
    mask = jax.ShapeDtypeStruct((n_images,), bool, sharding=divided)
    params = encoder.abstract_params()
    vector = jax.ShapeDtypeStruct((n_concepts,), jnp.float32)
    kernel = jax.ShapeDtypeStruct((encoder.width, n_concepts), jnp.float32)
    sae = {"kernel": kernel, "bias": vector, "scale": vector, "shift": vector}
    top = jax.eval_shape(lambda: streaming.init_top_images(n_concepts, config.measure.top_images))
    step = jit_measure(encoder, grid, mesh)
    return step.lower(
        whole(params), whole(sae),
        jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere), whole(top),
        images, mask, rows, n_kept=min(FIRST_KEPT, n_concepts),
        precision=matmul_precision(config.encoder.dtype),
    )  # fmt: skip


def _row(config, part, topology, n_chips, chip: Chip | None, mesh: Mesh, images, lower) -> Row:
    try:
        compiled, options = compile_anywhere(lower["usual"]())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Ran out of memory" not in str(error):
            raise
        logging.warning("does not compile: %s", str(error).splitlines()[0][:300])
        return _row_that_does_not_compile(part, topology, n_chips, chip, mesh, images)
    weight = weight_of(chip)
    cost, memory = cost_of(compiled.as_text(), weight), compiled.memory_analysis()
    peak = memory.peak_memory_in_bytes
    times = (
        roofline(cost, chip) if chip else dict.fromkeys(("compute", "memory", "exchange"), np.nan)
    )
    seconds = max(times.values())
    full = np.nan
    if "full" in lower and chip:
        last, more = compile_anywhere(lower["full"]())
        options = options or more
        full = max(roofline(cost_of(last.as_text(), weight), chip).values())
        peak = max(peak, last.memory_analysis().peak_memory_in_bytes)
    return Row(
        part=part,
        topology=topology,
        n_chips=n_chips,
        data=mesh.shape["data"],
        model=mesh.shape["model"],
        argument_gb=memory.argument_size_in_bytes / 1e9,
        temporary_gb=memory.temp_size_in_bytes / 1e9,
        peak_gb=peak / 1e9,
        memory_gb=chip.memory / 1e9 if chip else np.nan,
        fits=peak <= usable_memory(chip) if chip else True,
        teraflops=cost.flops / 1e12,
        traffic_gb=cost.bytes / 1e9,
        fallback_gb=cost.fallback_bytes / 1e9,
        exchange={f"{kind} over {n}": size / 1e9 for (kind, n), size in cost.collectives.items()},
        compute_ms=1e3 * times["compute"],
        memory_ms=1e3 * times["memory"],
        exchange_ms=1e3 * times["exchange"],
        roofline_ms=1e3 * seconds,
        full_precision_ms=1e3 * full,
        hours=_hours(config, part, mesh, images, seconds, full),
        images=images,
        options=options,
    )


def _row_that_does_not_compile(part, topology, n_chips, chip: Chip | None, mesh, images) -> Row:
    """The compiler found no room for it."""
    unknown = dict.fromkeys((field.name for field in dataclasses.fields(Row)), np.nan)
    known = {
        "part": part, "topology": topology, "n_chips": n_chips, "data": mesh.shape["data"],
        "model": mesh.shape["model"], "exchange": {}, "fits": False, "images": images,
        "memory_gb": chip.memory / 1e9 if chip else np.nan, "options": "",
    }  # fmt: skip
    return Row(**unknown | known)


def _hours(config, part: str, mesh: Mesh, images: int, seconds: float, full: float) -> float:
    """Of the whole run: its images for generate and measure (arms and controls), else its steps."""
    if config.plan.stage in DATA_PARALLEL:
        n_sets = 2 + len(controls_of(config)) if config.plan.stage == "measure" else 1
        n_images = config.real.limit * n_sets
        n_steps = n_images / (TEXT_BATCH if part == "text" else images)
        return n_steps * seconds / 3600 if n_images > 0 else np.nan
    if config.train.steps < 1 and not config.plan.epoch_tokens:
        return np.nan
    made = make_recipe(config, mesh, config.plan.epoch_tokens)
    last = full if np.isfinite(full) else seconds
    return (made.n_low * seconds + (made.n_steps - made.n_low) * last) / 3600


def render(rows: Sequence[Row], stage: str) -> str:
    """The table as text."""
    title = [
        "part", "topology", "chips", "data x model", "images", "arguments", "temporaries", "peak",
        "of", "TFLOP", "bytes accessed", "communication", "ms: compute", "memory", "communication",
        "roofline", "last", "hours", "images/s/chip", "",
    ]  # fmt: skip
    lines = [title]
    for row in rows:
        exchange = [f"{kind} {gb:.2f} GB" for kind, gb in row.exchange.items() if gb >= 0.005]
        cells = (
            row.part,
            row.topology,
            f"{row.n_chips}",
            f"{row.data} x {row.model}",
            f"{row.images}" if row.images else "-",
            *(_number(gb, "GB", 2) for gb in (row.argument_gb, row.temporary_gb, row.peak_gb)),
            _number(row.memory_gb, "GB", 0),
            _number(row.teraflops, digits=2),
            _number(row.traffic_gb, "GB"),
            ", ".join(sorted(exchange)) or "none",
            *map(_number, (row.compute_ms, row.memory_ms, row.exchange_ms)),
            *map(_number, (row.roofline_ms, row.full_precision_ms)),
            _number(row.hours, digits=2),
            _number(row.images_per_second, digits=2),
            "" if row.fits else "DOES NOT FIT",
        )
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(title))]
    text = "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )
    notes = [
        f"{stage}: memory, TFLOP, bytes accessed and communication are those of one device and one"
        " step, as compiled; a roofline is the least time that the slowest of the three can take,"
        " not a measurement."
    ]
    if any(is_gpu(row.topology) for row in rows):
        notes.append(
            "GPUs: TFLOP count as bfloat16 ones, those in float32 by how much slower they are; fits"
            f" means within {GPU_SHARE:.0%} of the memory, which jax takes"
            " (XLA_PYTHON_CLIENT_MEM_FRACTION)."
        )
    for topology, options in dict.fromkeys((row.topology, row.options) for row in rows):
        if options:
            notes.append(f"{topology}: compiled with {options}, without which XLA fails where it"
                         " has no GPU to try on.")  # fmt: skip
    if not any(row.fits for row in rows):
        notes.append("NOTHING FITS: more chips, more model sharding, fewer tokens per step, or"
                     " --config.train.accumulate")  # fmt: skip
    return text + "".join(f"{note}\n" for note in notes)


def _number(value: float, unit: str = "", digits: int = 1) -> str:
    return f"{value:.{digits}f} {unit}".rstrip() if np.isfinite(value) else "-"


def _as_json(row: Row) -> dict[str, Any]:
    return as_json(dataclasses.asdict(row) | {"images_per_second": row.images_per_second})
