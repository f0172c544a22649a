"""stress: a finding asked for again and again -> how often the model draws it.

Reads comparisons/<set>/, captions, the generator, the encoder and the SAE; writes
stress/<set>/<finding>/. Images and their measures lie in folders of their own in it, which are
resumed, and divided among hosts, as those of `generate` and `measure` are.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import logging
from etils import epath

from bsjax import pipeline
from bsjax.analysis import stress as analysis
from bsjax.analysis.engine import Engine, Reading
from bsjax.analysis.measurement import write_measures
from bsjax.core import distributed
from bsjax.core.artifacts import (
    REAL,
    differing_keys,
    hash_json,
    is_remote,
    read_manifest,
    require_manifest,
)
from bsjax.core.config import select
from bsjax.core.errors import UserError, naming
from bsjax.core.paths import AnyPath
from bsjax.core.text import read_text, split_lines
from bsjax.data.captions import ImageSet
from bsjax.data.image_shards import Prompt, list_generated
from bsjax.experiment import held_out, inputs, preflight
from bsjax.generators.loading import Opened
from bsjax.results.comparisons import read_concepts, read_findings, read_stored
from bsjax.results.measures import Measured, read_measured
from bsjax.results.stress import (
    GENERATED,
    IMAGES,
    REAL_IMAGES,
    STAGE,
    Stressed,
    read_stressed,
    write_stressed,
)
from bsjax.stages.generate import draw_set
from bsjax.stages.measure import FLAGS, NAMES, build_engine
from bsjax.stats.asked import find_asking

FLAG_NAMES = {name: f"--{name}" for name in ("finding", "concept", "prompts")}
MOST_CAPTIONS = 10_000
MEASURED_EACH = 16  # real images measured for one caption, where their images must tell
# What may be another than it was when the set was compared: it changes no image of a prompt.
FREE = ("seed", "generator.prompts", "generator.samples", "generator.images_per_shard",
        "measure.top_images", "set")  # fmt: skip


class _Bench(NamedTuple):
    """What measures images, as those of the comparison were measured."""

    config: ml_collections.ConfigDict
    engine: Engine
    settings: dict[str, Any]
    parents: dict[str, str]


def stress(
    config: ml_collections.ConfigDict,
    workdir: AnyPath,
    finding: int | None = None,
    concept: int | None = None,
    samples: int = 8,
    captions: int = 16,
    prompts: str | None = None,
) -> None:
    """Draws `samples` images of each prompt and prints how many show the finding.

    Args:
      config: of the experiment.
      workdir: of the run.
      finding: number of a finding of its comparison; its concept with most evidence decides.
      concept: number of a concept instead.
      samples: images of each prompt.
      captions: how many captions of the data set are prompts.
      prompts: file of prompts, one per line, instead.

    Raises:
      UserError: no comparison, finding or prompt there, or encoder, SAE, threshold or generator are
        not those of the comparison.
    """
    _check_asked(config, workdir, samples, captions)
    name = inputs.generated_name(config)
    preflight.check_workdir(workdir)
    workdir = epath.Path(workdir)
    folder = workdir / "comparisons" / name
    statistics, _, manifest = read_stored(folder)
    with naming(FLAG_NAMES):
        target = analysis.find_target(
            name, read_findings(folder)[0], read_concepts(folder)[0], finding, concept
        )
    compared = analysis.known_captions(statistics, target.concept)
    lines = None if prompts is None else read_prompts(prompts)
    opened = inputs.open_generator(config, workdir)
    _check_same(workdir / "images" / name, "generate", config, {"generator": opened.digest})
    bench = _open_bench(config, workdir, name)
    held = None
    if lines is None:
        keys = read_measured(workdir / "measures" / REAL).keys
        held = held_out.list_held_out(config, keys, compared.captions)
    settings = select(config, pipeline.STRESS.config_keys) | {
        "sae.threshold": bench.settings["sae.threshold"],
        "set": name,
        "target": target.label,
        "samples": samples,
        "captions": captions if lines is None else prompts,
    }
    parents = bench.parents | {
        f"comparisons/{name}": manifest["config_hash"],
        "generator": opened.digest,
        "captions": hash_json(lines) if held is None else held.digest,
    }
    place = f"stress/{name}/{target.folder}" + ("" if lines is None else "-prompts")
    done = distributed.begin_together(
        workdir / place, config=settings, parents=parents, overwrite=config.overwrite, stage=STAGE
    )
    if done is None:
        with naming(FLAG_NAMES):
            if held is None:
                chosen = analysis.take_given(lines, compared, str(prompts))
            else:
                chosen = _choose(bench, workdir / place, compared, target.concept, held, captions)
        made = _try_out(bench, workdir, place, opened, target, chosen, samples)
        notes = [*made.manifest["notes"], *inputs.generator_notes(config)]
        told = {"config": settings, "parents": parents, "notes": notes}
        if distributed.is_writer():
            write_stressed(
                workdir / place, Stressed(made.prompts, made.samples, made.manifest | told)
            )
    if distributed.is_writer():
        sys.stdout.write(f"{read_stressed(workdir / place)}\n")
        sys.stdout.flush()


def _check_asked(
    config: ml_collections.ConfigDict, workdir: AnyPath, samples: int, captions: int
) -> None:
    """Refuses what cannot be, before anything is read."""
    for name, value, most in (
        ("samples", samples, analysis.MOST_SAMPLES), ("captions", captions, MOST_CAPTIONS),
    ):  # fmt: skip
        if not 1 <= value <= most:
            raise UserError(f"--{name}={value}: expected a whole number from 1 to {most}")
    if config.generator.name == "none":
        raise UserError(
            "a folder of images cannot be asked for others (generator.name=none); name by --config"
            " the generator that drew them"
        )
    if is_remote(workdir):
        raise UserError(
            f"--workdir={workdir}: stress reads a comparison as files, expected a folder of this"
            " machine; copy the workdir, and name the copy"
        )


def _try_out(
    bench: _Bench,
    workdir: AnyPath,
    place: str,
    opened: Opened,
    target: analysis.Target,
    chosen: analysis.Chosen,
    samples: int,
) -> Stressed:
    """Draws the images, measures them, counts."""
    logging.info("%s: %d prompts. %s", target.label, len(chosen.captions), chosen.told)
    images = list_images(chosen.captions, samples)
    digests = {"captions": hash_json(images), "generator": opened.digest}
    folder = f"{place}/{IMAGES}"
    draw_set(bench.config, workdir, folder, opened, images, parents=digests, purpose=STAGE)
    drawn = require_manifest(workdir / folder, "generate")
    found = list_generated(workdir / folder)
    measured = _measure(bench, workdir / place / GENERATED, found, drawn["config_hash"])
    places = [analysis.place_of(key) for key in measured.keys]
    return analysis.tabulate(target, chosen, measured, places)


def read_prompts(path: str) -> list[str]:
    """The lines of a file of prompts, each once, without empty ones.

    Raises:
      UserError: it cannot be read, or has none.
    """
    lines = [line.strip() for line in split_lines(read_text(pathlib.Path(path).expanduser()))]
    found = list(dict.fromkeys(line for line in lines if line))
    if not found:
        raise UserError(f"--prompts={path} holds no prompt; write one per line")
    return found


def list_images(captions: Sequence[str], samples: int) -> list[Prompt]:
    """What is drawn. The noise follows from place of the caption and number of the sample alone.

    So more samples, or more captions behind these, leave the images as they are.
    """
    return [
        Prompt(place * analysis.MOST_SAMPLES + i, analysis.image_key(place, i), caption)
        for place, caption in enumerate(captions)
        for i in range(samples)
    ]


def _choose(
    bench: _Bench,
    folder: AnyPath,
    compared: analysis.Compared,
    concept: int,
    held: held_out.HeldOut,
    n: int,
) -> analysis.Chosen:
    """Captions that ask for a concept; held out where the data set has such ones."""
    seed, told = (
        bench.config.seed,
        "Held out: the captions and their real images lie behind real.limit",
    )
    words: list[str] = []
    asking, others = [], []
    for block in held.blocks():
        texts = [text for text, _ in block]
        words, asks = find_asking(compared.captions, compared.shows, texts)
        asking += [each for each, does in zip(block, asks, strict=True) if does]
        others += block
        if len(asking) >= n or (not words and len(others) >= n * MEASURED_EACH):
            break
    pairs = asking[:n] if words else others[: n * MEASURED_EACH]
    if not pairs:
        return analysis.choose_known(compared, n, seed)
    captions = [text for text, _ in pairs]
    shows = _look(
        bench, folder / REAL_IMAGES, [record for _, record in pairs], held.digest, concept
    )
    if words:
        told += f". They ask for it by the words {', '.join(words)}, learnt on those compared."
        real = [(0, 0) if does is None else (1, int(does)) for does in shows]
        return analysis.Chosen(captions, real, analysis.ASKING, words, True, told)
    captions = [caption for caption, does in zip(captions, shows, strict=True) if does][:n]
    if not captions:
        return analysis.choose_known(compared, n, seed)
    return analysis.choose_showing(captions, True, told)


def _look(
    bench: _Bench, folder: AnyPath, records: Sequence[Any], digest: str, concept: int
) -> list[bool | None]:
    """Whether real images show a concept; None of those that cannot be used."""
    images = ImageSet(tuple(records), (), len(records), 0, 0, "")
    digest = hash_json([digest, [record.key for record in records]])
    measured = _measure(bench, folder, images, digest)
    fires = measured.codes[:, [concept]].toarray().ravel() > 0
    shows = dict(zip(measured.keys, fires.tolist(), strict=True))
    return [shows.get(record.key) for record in records]


def _open_bench(config: ml_collections.ConfigDict, workdir: AnyPath, name: str) -> _Bench:
    """Encoder and SAE of the config, if the comparison was made with them."""
    encoder = inputs.load_encoder(config)
    sae, threshold = inputs.load_sae(config, workdir, encoder)
    settings = select(config, pipeline.BY_NAME["measure"].config_keys)
    settings["sae.threshold"] = threshold if np.ndim(threshold) == 0 else "one a concept"
    parents = {"encoder": encoder.digest, "sae": sae.digest}
    _check_same(workdir / "measures" / name, "measure", config, parents, settings)
    engine = build_engine(config, encoder, encoder.params, sae.encoder, threshold)
    return _Bench(config, engine, settings, parents)


def _check_same(
    folder: AnyPath,
    stage: str,
    config: ml_collections.ConfigDict,
    parents: dict[str, str],
    settings: dict[str, Any] | None = None,
) -> None:
    """Refuses what is another than it was when the images that were compared were made.

    Images that were removed to save space tell nothing.
    """
    manifest = read_manifest(folder, stage)
    if manifest is None:
        return
    settings = settings or select(config, pipeline.BY_NAME[stage].config_keys)
    for key in differing_keys(manifest["config"], settings):
        if key not in FREE:
            raise UserError(
                f"{key} is {settings.get(key, 'unset')!r}, and was"
                f" {manifest['config'].get(key, 'unset')!r} when {folder} was made, which was"
                f" compared; go back to it, or measure and compare anew"
            )
    for key, digest in parents.items():
        if manifest["parents"].get(key) != digest:
            raise UserError(
                f"the {key} is another than {folder} was made with, which was compared; go back to"
                " it, or measure and compare anew"
            )


def _measure(bench: _Bench, folder: AnyPath, images: ImageSet, digest: str) -> Measured:
    """Measures of images, made now where they are not there."""
    config, set_name = bench.config, folder.name
    settings, parents = bench.settings | {"set": set_name}, bench.parents | {"images": digest}
    done = distributed.begin_together(
        folder, config=settings, parents=parents, overwrite=config.overwrite, stage="measure"
    )
    if done is None:
        section = "real" if set_name == REAL_IMAGES else "generated"
        flags = FLAGS | {"max_bad": f"--config.{section}.max_bad"}
        with inputs.naming_arm(section), naming(flags):
            reading = Reading(
                config.encoder.resize, config.encoder.crop, config[section].max_bad, workers=0,
                top_images=config.measure.top_images,
                images_per_shard=config.measure.images_per_shard,
            )  # fmt: skip
            write_measures(folder, set_name, images, reading, bench.engine, settings=settings,
                           parents=parents, names=NAMES)  # fmt: skip
    return read_measured(folder)
