"""measure: images -> tokens of an encoder -> SAE codes -> concept statistics of every image set.

Reads the images of both arms, the encoder and the SAE; writes measures/<set>/. Where the config
asks for controls, also measures/control-<kind>/ of the real images, changed (`stages.control`).
Several hosts divide each set and come to the same files; each works on its own devices.
"""

from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from bsjax import pipeline
from bsjax.analysis import measurement
from bsjax.analysis.engine import (
    FIRST_KEPT,
    Engine,
    Reading,
    jit_measure,
    make_engine,
    measure_images,
    measure_step,
)
from bsjax.analysis.measurement import write_measures
from bsjax.core import distributed
from bsjax.core.artifacts import REAL
from bsjax.core.config import select
from bsjax.core.errors import naming
from bsjax.core.logs import PhaseTimer
from bsjax.core.mesh import make_mesh
from bsjax.core.paths import AnyPath
from bsjax.data.captions import BadImage
from bsjax.encoders.protocol import Encoder
from bsjax.experiment import controls, inputs, pairs, preflight, workers
from bsjax.experiment.stored import EXPERIMENT, experiment_of
from bsjax.results.shards import ShardStore
from bsjax.stages import control
from bsjax.stages.rank import rank

__all__ = ["jit_measure", "measure", "measure_sets", "measure_step"]
FLAGS = {"weights": "--config.encoder.weights", "dtype": "--config.encoder.dtype"}
NAMES = ("--config.sae.threshold", "--config.sae.weights", "--config.encoder.weights")


def measure(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
    """Measures every image set of the config that is not measured yet; ranks if asked to."""
    arms = measure_sets(config, workdir)
    if config.measure.rank_concept >= 0 and distributed.is_writer():
        for arm in arms:
            rank(epath.Path(workdir) / "measures" / arm.name, config.measure.rank_concept)


def measure_sets(config: ml_collections.ConfigDict, workdir: AnyPath) -> list[inputs.Arm]:
    """Measures every image set of the config that is not measured yet; returns all sets."""
    preflight.check_workdir(workdir)
    arms = inputs.load_arms(config, workdir)
    if config.generator.name == "none" and len(arms) == 2:
        pairs.check_arms(config, *arms)
    encoder = inputs.load_encoder(config)
    sae, threshold = inputs.load_sae(config, workdir, encoder)
    preflight.check_ranked(config, sae.n_concepts)
    n_images = {arm.name: len(arm.images.records) for arm in arms}
    planned = control.plan_controls(config, arms)
    n_changed = controls.n_images(config, n_images.get(REAL, 0))
    bills = preflight.bills_of_measures(config, workdir, n_images | n_changed, encoder)
    for drawn in controls.drawn(n_changed):
        bills += preflight.bills_of_images(config, workdir, n_changed[drawn], drawn)
    preflight.check_disk(bills)
    notes = inputs.encoder_notes(encoder)
    engine = None
    for arm, change in [*((arm, None) for arm in arms), *((arms[0], each) for each in planned)]:
        inputs.refuse_duplicates((r.key for r in arm.images.records), f"images of {arm.name}")
        settings = select(config, pipeline.BY_NAME["measure"].config_keys)
        shown = threshold if np.ndim(threshold) == 0 else "one a concept"
        settings |= {"sae.threshold": shown, "set": arm.name}
        parents = {"images": arm.digest, "encoder": encoder.digest, "sae": sae.digest}
        if change is not None:
            arm = arm._replace(name=change.name)
            settings |= {**change.settings, "set": change.name}
            parents |= change.parents
        folder = workdir / "measures" / arm.name
        done = distributed.begin_together(
            folder, config=settings, parents=parents, overwrite=config.overwrite, stage="measure"
        )
        if done is not None:
            continue
        if change is not None:
            arm = arm._replace(images=control.images_of(change, config, workdir, arm))
        if engine is None:
            engine = build_engine(config, encoder, encoder.params, sae.encoder, threshold)
        with inputs.naming_arm(arm.section), naming(FLAGS | _arm_flags(arm)):
            write_measures(
                folder,
                arm.name,
                arm.images,
                _reading(config, arm, engine),
                engine,
                settings=settings,
                parents=parents,
                notes=[*notes, *arm.notes],
                names=NAMES,
                n_kept=FIRST_KEPT,
                more={EXPERIMENT: experiment_of(config)},
            )
    return arms


def build_engine(
    config: ml_collections.ConfigDict,
    encoder: Encoder,
    params: Any,
    sae_encoder: Any,
    threshold: float | np.ndarray,
) -> Engine:
    """Places the parameters on the mesh and jits the step.

    Of several hosts each has a mesh of its own: none waits for another, and the axes of the config
    are those of a training, which has all devices.
    """
    if distributed.n_hosts() > 1:
        mesh = make_mesh(-1, 1, jax.local_devices())
    else:
        mesh = make_mesh(config.mesh.data, config.mesh.model)
    return make_engine(
        encoder,
        params,
        sae_encoder,
        threshold,
        crop=config.encoder.crop,
        dtype=config.encoder.dtype,
        mesh=mesh,
        batch_size=inputs.batch_size(config, mesh),
    )


def measure_arm(
    config: ml_collections.ConfigDict,
    arm: inputs.Arm,
    engine: Engine,
    store: ShardStore,
    timer: PhaseTimer,
) -> list[BadImage]:
    """Measures the images behind the last finished shard; returns all unusable images."""
    reading = _reading(config, arm, engine)
    with naming(FLAGS | _arm_flags(arm)):
        return measure_images(arm.name, arm.images, reading, engine, store, timer, FIRST_KEPT)


def silence_note(name: str, counts: dict[str, Any], threshold: float | np.ndarray) -> list[str]:
    """A warning where no token of a set fired, which no honest SAE brings about; else none."""
    return measurement.silence_note(name, counts, threshold, NAMES)


def _reading(config: ml_collections.ConfigDict, arm: inputs.Arm, engine: Engine) -> Reading:
    source, crop = config[arm.section], config.encoder.crop
    return Reading(
        resize=config.encoder.resize,
        crop=crop,
        max_bad=source.max_bad,
        workers=workers.n_workers(source.workers, engine.batch_size * crop**2 * 3),
        top_images=config.measure.top_images,
        images_per_shard=config.measure.images_per_shard,
    )


def _arm_flags(arm: inputs.Arm) -> dict[str, str]:
    return {"max_bad": f"--config.{arm.section}.max_bad"}
