"""A finding -> captions that ask for it; the images drawn for them -> how often it was drawn."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from bsjax.core.errors import UserError
from bsjax.results.columns import STRESS_PROMPTS, STRESS_SAMPLES, make_table
from bsjax.results.measures import Measured
from bsjax.results.statistics import Statistics
from bsjax.results.stress import Stressed
from bsjax.stats.asked import find_asking
from bsjax.stats.proportions import wilson
from bsjax.stats.stress import Share, pass_at_k, share_of_prompts

ASKING, SHOWING, GIVEN = "asking", "showing", "given"  # how prompts were chosen
MOST_SAMPLES = 1000  # of a prompt: its images' noises stand so far from those of the next
SHOWN = 12  # findings that a message names


class Target(NamedTuple):
    """What is asked for."""

    label: str  # "finding 2"
    concept: int  # whose firing passes: of a finding the one with the most evidence
    concepts: tuple[int, ...]  # of the finding
    words: str
    verdict: str

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return self.label.replace(" ", "-")


class Chosen(NamedTuple):
    """Prompts with what is known of real images of theirs."""

    captions: list[str]
    real: list[tuple[int, int]]  # real images of each, and how many show the concept; (0, 0)
    how: str  # ASKING: have a word that goes with it; SHOWING: their real images do; GIVEN
    words: list[str]  # by which they ask
    is_held_out: bool  # whether none of them was in what was compared
    told: str  # the same in a sentence


def find_target(
    name: str, findings: pa.Table, concepts: pa.Table, finding: int | None, concept: int | None
) -> Target:
    """The finding, or the concept, of a comparison.

    Args:
      name: of the set.
      findings: of its comparison.
      concepts: of its comparison.
      finding: number of one; None: a concept is meant.
      concept: number of one.

    Raises:
      UserError: there is no such finding or concept.
    """
    rows = {row["finding"]: row for row in findings.to_pylist()}
    if finding is None:
        if not 0 <= concept < concepts.num_rows:
            raise UserError(
                f"{{concept}}={concept}: expected one of the {concepts.num_rows} concepts of"
                f" {name}, from 0 to {concepts.num_rows - 1}", "concept",
            )  # fmt: skip
        row = concepts.slice(concept, 1).to_pylist()[0]
        label = f"concept {concept}"
        return Target(label, concept, (concept,), row["words"] or "", row["verdict"])
    if finding not in rows:
        held = [f"{number} ({row['words'] or 'no word'})" for number, row in rows.items()]
        more = f", and {len(held) - SHOWN} more" if len(held) > SHOWN else ""
        what = f"it has {', '.join(held[:SHOWN])}{more}" if held else "it has none; set {concept}"
        raise UserError(
            f"{{finding}}={finding}: the comparison of {name} has no such finding: {what}",
            "finding", "concept",
        )  # fmt: skip
    row = rows[finding]
    ids = tuple(row["concepts"])
    return Target(f"finding {finding}", ids[0], ids, row["words"] or "", row["verdict"])


class Compared(NamedTuple):
    """Captions of the pairs that were compared, each once, and what their real images show."""

    captions: list[str]
    real: dict[str, tuple[int, int]]  # caption -> real images, and those that show the concept

    @property
    def shows(self) -> np.ndarray:
        """Whether a real image of each caption shows the concept."""
        return np.array([self.real[caption][1] > 0 for caption in self.captions], bool)


def known_captions(statistics: Statistics, concept: int) -> Compared:
    """What a comparison says of the captions of its pairs."""
    fires = np.asarray(statistics.real[:, [concept]].todense()).ravel() > 0
    real: dict[str, tuple[int, int]] = {}
    for caption, does in zip(statistics.captions or [], fires.tolist(), strict=False):
        text = caption.strip()
        if text:
            n, showing = real.get(text, (0, 0))
            real[text] = n + 1, showing + does
    return Compared(list(real), real)


def choose_known(compared: Compared, n: int, seed: int) -> Chosen:
    """Captions of the pairs that were compared themselves, where there are no others.

    Words are learnt on one half of the captions, and prompts are chosen from the other, so that
    the rate of their real images is not that of those that taught the words.

    Raises:
      UserError: no caption asks for it, and no real image shows it.
    """
    order = np.random.default_rng(seed).permutation(len(compared.captions))
    taught, others = np.array_split(order, 2)
    candidates = [compared.captions[row] for row in others]
    teaching = [compared.captions[row] for row in taught]
    words, asks = find_asking(teaching, compared.shows[taught], candidates)
    told = (
        "NOT HELD OUT: the captions are among those that were compared, since the data set has no"
        " others; the images are new"
    )
    if asks.any():
        captions = [candidates[place] for place in np.flatnonzero(asks)[:n]]
        real = [compared.real[caption] for caption in captions]
        told += f". They ask for it by the words {', '.join(words)}, learnt on other captions."
        return Chosen(captions, real, ASKING, words, False, told)
    captions = [compared.captions[row] for row in order if compared.shows[row]][:n]
    return choose_showing(captions, False, told)


def choose_showing(captions: Sequence[str], is_held_out: bool, told: str) -> Chosen:
    """Captions whose real images show the concept, where no word goes with it.

    Raises:
      UserError: there is none.
    """
    if not captions:
        raise UserError(
            "no prompts: no word of the captions goes with the concept, and none of their real"
            " images shows it; name your own by {prompts}", "prompts",
        )  # fmt: skip
    told += ". No word goes with it: they were chosen since their real images show it."
    return Chosen(list(captions), [(0, 0)] * len(captions), SHOWING, [], is_held_out, told)


def take_given(prompts: Sequence[str], compared: Compared, origin: str) -> Chosen:
    """The user's own prompts; real images are known of those that are captions compared."""
    real = [compared.real.get(prompt, (0, 0)) for prompt in prompts]
    told = f"The prompts are those of {origin}."
    return Chosen(list(prompts), real, GIVEN, [], False, told)


def tabulate(
    target: Target, chosen: Chosen, generated: Measured, places: Sequence[tuple[int, int]]
) -> Stressed:
    """Tables and rates of a stress test.

    Args:
      target: what was asked for.
      chosen: the prompts.
      generated: measures of the images, whose keys `image_key` gives.
      places: numbers of the prompt and of the sample of each measured image, one after the other.

    Raises:
      UserError: of some prompt there is no image.
    """
    prompt, sample = np.array(places, np.int64).reshape(-1, 2).T
    codes = generated.codes[:, list(target.concepts)].toarray()  # [n, C]
    energy, fires = codes[:, 0].astype(np.float64), codes[:, 0] > 0
    n_prompts = len(chosen.captions)
    n = np.bincount(prompt, minlength=n_prompts)
    passes = np.bincount(prompt[fires], minlength=n_prompts)
    if not n.all():
        lost = chosen.captions[int(np.flatnonzero(n == 0)[0])]
        raise UserError(f"not one image of the prompt {lost[:60]!r} can be used; leave it out")
    tries = int(n.min())
    at_n = pass_at_k(n, passes, tries)
    known = np.array(chosen.real, np.int64).reshape(-1, 2)
    has_real = known[:, 0] > 0
    rates = known[has_real, 1] / known[has_real, 0]
    prompts = make_table(STRESS_PROMPTS, {
        "prompt": range(n_prompts), "text": chosen.captions, "n": n, "passes": passes,
        "pass_at_1": passes / n, "pass_at_n": at_n, "real_n": known[:, 0],
        "real_rate": [int(c) / int(m) if m else None for m, c in known],
    })  # fmt: skip
    samples = make_table(STRESS_SAMPLES, {
        "prompt": prompt, "sample": sample, "fires": fires, "energy": energy,
        "concepts": (codes > 0).sum(axis=1), "image": generated.keys,
    })  # fmt: skip
    one = np.ones(n_prompts, np.int64)
    manifest: dict[str, Any] = {
        "target": {**target._asdict(), "concepts": list(target.concepts)},
        "captions": {"how": chosen.how, "words": chosen.words, "held_out": chosen.is_held_out,
                     "told": chosen.told},
        "counts": {
            "prompts": n_prompts, "images": int(n.sum()), "passes": int(passes.sum()),
            "tries": tries, "prompts_passed": int((passes > 0).sum()),
            "prompts_with_real": int(has_real.sum()),
        },
        "rates": {
            "image": share_of_prompts(passes / n, n)._asdict(),
            "at_least_once": share_of_prompts(at_n, one)._asdict(),
            "real": _real(rates, known[has_real, 0]),
            "these": list(wilson(int(passes.sum()), int(n.sum()))),
        },
        "pass_at": {str(k): float(pass_at_k(n, passes, k).mean()) for k in _ladder(tries)},
        "notes": [] if chosen.is_held_out or chosen.how == GIVEN else [chosen.told],
    }  # fmt: skip
    return Stressed(prompts, samples, manifest)


def _real(rates: np.ndarray, n: np.ndarray) -> dict[str, float] | None:
    found: Share | None = share_of_prompts(rates, n) if len(rates) else None
    return None if found is None else found._asdict()


def _ladder(n: int) -> list[int]:
    """1, 2, 4, ... and n."""
    return sorted({1 << bit for bit in range(n.bit_length())} | {n})


def image_key(prompt: int, sample: int) -> str:
    """What an image is called."""
    return f"p{prompt:05d}-s{sample:04d}"


def place_of(key: str) -> tuple[int, int]:
    """Prompt and sample of an image."""
    prompt, sample = key.split("-")
    return int(prompt[1:]), int(sample[1:])
