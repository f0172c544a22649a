"""convert: the trained SAE in the format of the reference library.

Reads sae/; writes sae/overcomplete.safetensors, a state dict that overcomplete's `BatchTopKSAE`
with a `RelaxedArchetypalDictionary` loads, and that `train.init_from` takes.
"""

import ml_collections
import numpy as np
from absl import logging
from etils import epath

from bsjax.convert.rasae import OVERCOMPLETE, save_overcomplete
from bsjax.core.artifacts import require_manifest
from bsjax.core.checkpoint import Checkpoints
from bsjax.core.errors import UserError
from bsjax.stages.train_sae import CANDIDATES_FILE, CHECKPOINTS


def convert(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Exports the newest checkpoint of a finished training; W as a whole goes through memory.

    Raises:
      UserError: no finished training, or one that the reference's class cannot hold.
    """
    del config
    folder = workdir / "sae"
    manifest = require_manifest(folder, "train_sae")
    if manifest["config"]["train.activation"] != "batch_topk":
        raise UserError("only batch_topk can be exported; train with --config.train.activation")
    checkpoints = Checkpoints(folder / CHECKPOINTS, keep=1, is_read_only=True)
    restored = checkpoints.restore(None)
    checkpoints.close()
    if restored is None:
        raise UserError(f"{folder / CHECKPOINTS} is empty; train again to export")
    state, _ = restored
    with (folder / CANDIDATES_FILE).open("rb") as file, np.load(file) as stored:
        C = stored["candidates"]
    path = folder / OVERCOMPLETE
    save_overcomplete(path, state["params"], C, float(state["threshold"]))
    logging.info("written: %s", path)
