"""convert: weights from one format to another, once.

With a generator in the config: reads its repositories, writes weights/<set>/, from which the hosts
of a pod load what their devices hold. Where the workdir has a trained SAE: reads sae/, writes
sae/overcomplete.safetensors, a state dict that overcomplete's `BatchTopKSAE` with a
`RelaxedArchetypalDictionary` loads, and that `train.init_from` takes.
"""

import ml_collections
import numpy as np
from absl import logging

from bsjax.convert.rasae import OVERCOMPLETE, save_overcomplete
from bsjax.core.artifacts import MANIFEST, check_files, require_manifest
from bsjax.core.checkpoint import Checkpoints
from bsjax.core.errors import UserError
from bsjax.core.paths import AnyPath
from bsjax.experiment import inputs
from bsjax.generators import loading
from bsjax.stages.train_sae import CANDIDATES_FILE, CHECKPOINTS


def convert(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
    """Converts what there is.

    Raises:
      UserError: nothing to convert, or as `convert_generator` and `export_sae`.
    """
    has_generator = config.generator.name != "none"
    if has_generator:
        convert_generator(config, workdir)
    if not has_generator or (workdir / "sae" / MANIFEST).exists():
        export_sae(workdir)


def convert_generator(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
    """Writes the generator's parameters as they are used, with its configs and tokenizers.

    Raises:
      UserError: random weights, offline, weights that do not fit.
    """
    if config.generator.weights.startswith(loading.RANDOM):
        raise UserError(
            f"generator.weights={config.generator.weights} needs no conversion; set"
            " --config.generator.weights"
        )
    folder = inputs.weights_folder(config, workdir)
    if (folder / loading.CACHE).exists() and not config.overwrite:
        logging.info("%s is finished already", folder)
        return
    loading.save_cache(inputs.open_original(config), folder, inputs.weights_of(config))
    logging.info("written: %s", folder)


def export_sae(workdir: AnyPath) -> None:
    """Exports the newest checkpoint of a finished training; W as a whole goes through memory.

    Raises:
      UserError: no finished training, or one that the reference's class cannot hold.
    """
    folder = workdir / "sae"
    manifest = require_manifest(folder, "train_sae")
    if manifest["config"]["train.activation"] != "batch_topk":
        raise UserError(
            "only batch_topk can be exported; train with --config.train.activation=batch_topk"
        )
    read = [name for name in manifest["files"] if name.startswith(f"{CHECKPOINTS}/")]
    check_files(folder, manifest, [CANDIDATES_FILE, *read])
    checkpoints = Checkpoints(folder / CHECKPOINTS, keep=1, is_read_only=True)
    restored = checkpoints.restore(None)
    checkpoints.close()
    if restored is None:
        raise UserError(f"{folder / CHECKPOINTS} is empty; train again to export")
    state, _ = restored
    with (folder / CANDIDATES_FILE).open("rb") as file, np.load(file) as stored:
        C = stored["candidates"]
    path = folder / OVERCOMPLETE
    radius = manifest["config"]["train.relax_radius"]
    save_overcomplete(path, state["params"], C, float(state["threshold"]), radius)
    logging.info("written: %s", path)
