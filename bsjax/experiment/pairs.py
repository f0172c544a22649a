"""Whether the images of two arms belong together, asked before any work and again by `compare`."""

from collections.abc import Sequence

import ml_collections
from absl import logging

from bsjax.core.errors import UserError
from bsjax.data.image_shards import Prompt
from bsjax.data.pairing import (
    LOT,
    NAMES,
    SAMPLES,
    Named,
    Pairing,
    pair_images,
    pair_keys,
    plain_caption,
)
from bsjax.experiment import inputs

PROBED = 500  # pairs whose captions are looked at
LEAST_WRONG = 0.01  # of them have the caption of another real image, beyond chance
SHOWN = 5  # keys that a message names
LEAST_PAIRS = 2


def check_arms(config: ml_collections.ConfigDict, real: inputs.Arm, generated: inputs.Arm) -> None:
    """Pairs the images of two arms, as `compare` will.

    Raises:
      UserError: as `check_pairing`.
    """
    if is_unpaired(config):
        logging.warning("UNPAIRED: the arms are of different captions; their images are no pairs")
        return
    left, right = (inputs.named(arm) for arm in (real, generated))
    pairing = pair_images(left, right)
    check_pairing(config, left.keys, right.keys, pairing)
    if generated.images.n_without_caption < len(generated.images.records):
        _check_captions(left, right, pairing)
    if pairing.has_samples or pairing.by != NAMES:
        logging.info(
            "%d generated images belong to %d real ones, by %s; those of one count as one",
            *(len(pairing.rows_real), len(set(pairing.rows_real.tolist())), pairing.by),
        )


def _check_captions(real: Named, generated: Named, pairing: Pairing) -> None:
    """Refuses pairs by name whose captions say that other images belong together.

    Numbers are names, too: 00003.png of a list of prompts need not be 00003.jpg of the real ones.

    Raises:
      UserError: most pairs differ in caption, and some have that of another real image.
    """
    if pairing.by not in (NAMES, SAMPLES):
        return
    told = [
        (row, other)
        for row, other in zip(pairing.rows_real, pairing.rows_generated, strict=True)
        if (generated.clusters[other] or generated.keys[other]) == generated.keys[other]
    ]
    told = told[:: max(len(told) // PROBED, 1)][:PROBED]
    if not told:
        return
    of_real = {plain_caption(real.captions[row]): real.keys[row] for row, _ in told}
    n_other, wrong = 0, []
    for row, other in told:
        caption = plain_caption(generated.captions[other])
        if caption and caption != plain_caption(real.captions[row]):
            n_other += 1
            if caption in of_real:
                wrong.append((other, real.keys[row], of_real[caption]))
    # Prompts may be captions with words around them; such are no captions of other images.
    if 2 * n_other > len(told) and len(wrong) >= max(2, LEAST_WRONG * len(told)):
        other, named, meant = wrong[0]
        raise UserError(
            f"of {len(told)} pairs by name {n_other} differ in caption: generated"
            f" {generated.keys[other]!r} has the name of {named!r}, but the caption of {meant!r};"
            " rename the generated images (prompt_00000 instead of 00000 pairs them by"
            " caption), or give a table of image and key"
        )


def check_prompts(
    config: ml_collections.ConfigDict, real: inputs.Arm, prompts: Sequence[Prompt]
) -> None:
    """Refuses prompts of a file that are no captions of the real images, before any is drawn.

    Raises:
      UserError: none is, and the config does not say that the captions differ.
    """
    if not config.generator.prompts or is_unpaired(config):
        return
    keys, captions = ([getattr(each, name) for each in prompts] for name in ("key", "caption"))
    pair_images(inputs.named(real), Named(keys, captions))


def is_unpaired(config: ml_collections.ConfigDict) -> bool:
    """Whether the config says that the two arms are of different captions."""
    return config.compare.get("pairs", "auto") == "none"


def check_pairing(
    config: ml_collections.ConfigDict,
    real: Sequence[str],
    generated: Sequence[str],
    pairing: Pairing | None = None,
) -> None:
    """Compares the keys of real images and of images made elsewhere.

    Images that the other set's limit leaves without a partner do not count.

    Args:
      config: the experiment.
      real, generated: keys of the two sets.
      pairing: of them, where it is known.

    Raises:
      UserError: fewer than two pairs, or more without a partner than `max_unpaired` allows.
    """
    pairing = pair_keys(real, generated) if pairing is None else pairing
    if pairing.by == LOT:
        return
    if len(pairing.rows_real) < LEAST_PAIRS:
        raise UserError(
            f"only {len(pairing.rows_real)} pair of a real and a generated image, of {len(real)}"
            f" and {len(generated)}; expected at least {LEAST_PAIRS}: name each generated image"
            " after its real one"
        )
    sides = (
        ("real", "generated", real, pairing.unpaired_real, len(generated)),
        ("generated", "real", generated, pairing.unpaired_generated, len(real)),
    )
    faults, flags = [], []
    for section, other, keys, unpaired, n_other in sides:
        if not unpaired or (n_other < len(keys) and n_other == config[other].limit):
            continue
        shown = ", ".join(map(repr, unpaired[:SHOWN]))
        more = f" and {len(unpaired) - SHOWN} more" if len(unpaired) > SHOWN else ""
        fault = (
            f"{len(unpaired)} of {len(keys)} {section} images have no {other} image ({shown}{more})"
        )
        allowed = config[section].max_unpaired
        if len(unpaired) > allowed * len(keys):
            faults.append(f"{fault}, at most {allowed:.2%} may")
            flags.append(f"--config.{section}.max_unpaired")
        else:
            logging.warning("%s: they are left out of the comparison", fault)
    if faults:
        raise UserError(
            f"{'; '.join(faults)}: name each generated image after the real image whose caption it"
            f" was made from, or raise {' and '.join(flags)}"
        )
