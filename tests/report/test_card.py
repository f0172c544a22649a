"""The run card: what decides the numbers, under heads, without paths of a machine."""

import dataclasses
import json
import re

import pytest

from bsjax.core.artifacts import write_manifest
from bsjax.report.card import FAILED, GROUPS, PASSED, grouped, reliability, run_card, value_text
from bsjax.report.tables import read_comparisons
from bsjax.results import ingested
from bsjax.stats import verdicts
from tests.report.artifacts import COUNTS, RELIABILITY, finish, write_arm, write_comparison


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3.2719383239746094, "3.27194"),
        (1e-7, "1e-07"),
        (64, "64"),
        ("facebook/dinov2-with-registers-base", "facebook/dinov2-with-registers-base"),
        ("/home/me/models/dinov2", "dinov2"),
        ("~/models/dinov2", "dinov2"),
        (r"C:\\models\\dinov2.pth", "dinov2.pth"),
        ("/w/run/sae/sae.safetensors", "sae/sae.safetensors"),
        ("/w/running/sae", "sae"),
        ("/opt/x/bsjax/assets/scenes/encoder", "bsjax/assets/scenes/encoder"),
        ("random:0", "random:0"),
        ("gs://bucket/sae", "gs://bucket/sae"),
    ],
)
def test_a_setting_has_six_digits_and_no_path_of_a_machine(value, told):
    assert value_text(value, "/w/run") == told


@pytest.fixture
def comparison(tmp_path):
    config = {"encoder.weights": str(tmp_path / "elsewhere" / "enc"), "encoder.crop": 28,
              "encoder.resize": 28, "sae.threshold": 3.2719383239746094}  # fmt: skip
    counts = COUNTS | {"listed": 5, "images": 4, "bad": 1, "not_understood": 0}
    for name in ("real", "one"):
        write_arm(tmp_path, name, 7)
        finish(tmp_path / "measures" / name, "measure", config, counts)
    write_comparison(tmp_path, "one", list(verdicts.KINDS))
    drawn = {"generator.weights": str(tmp_path / "mine" / "sd"), "generator.steps": 20,
             "generator.guidance": 1 / 3, "generator.unet_weights": "", "seed": 0}  # fmt: skip
    folder = tmp_path / "images" / "one"
    folder.mkdir(parents=True)
    counts = {"images": 4, "failed": 2, "without_caption": 0, "truncated": 1}
    write_manifest(folder, stage="generate", config=drawn, parents={}, counts=counts)
    return read_comparisons(tmp_path, ["one"])[0]


def test_the_card_tells_what_became_of_rows_that_were_fetched(comparison, tmp_path):
    folder = tmp_path / "ingested"
    counts = dict.fromkeys(ingested.OUTCOMES, 0) | {"kept": 60, "dead": 30, "opted_out": 10}
    write_manifest(
        folder, stage="ingest", config={}, parents={}, counts={"rows": 5000, "asked": 100, **counts}
    )
    real = comparison.real
    manifest = real.manifest | {"experiment": {"real.path": str(folder)}}
    fetched = comparison._replace(real=dataclasses.replace(real, manifest=manifest))
    card = run_card(tmp_path, fetched)
    assert card["images fetched"] == (
        "60 of 100 rows asked for, drawn from 5000; 30 dead, 10 opted out"
    )
    # A manifest of somebody else's, or a damaged one, is none.
    for text in ('{"stage": "ingest", "counts": {}}', '{"version": 3}', "[]", "no json"):
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        assert "images fetched" not in run_card(tmp_path, fetched)


def test_the_card_tells_what_matters_and_no_path(comparison, tmp_path):
    card = run_card(tmp_path, comparison, (3, 1))
    text = json.dumps(card)
    assert str(tmp_path) not in text and "/tmp" not in text
    assert not re.search(r"\d\.\d{7}", text)  # no more than six digits
    assert card["generator"] == "weights mine/sd, steps 20, guidance 0.333333, seed 0"
    assert card["encoder"] == "weights elsewhere/enc, short side 28, crop 28"
    real = comparison.real.manifest
    for known, told in (({"sae": "5ae"}, ", threshold 3.27194, hash 5ae"), ({}, "")):
        config = real["config"] | ({} if known else {"sae.threshold": None})
        manifest = real | {"parents": known, "config": config}
        other = dataclasses.replace(comparison.real, manifest=manifest)
        assert run_card(tmp_path, comparison._replace(real=other))["SAE"] == f"7 concepts{told}"
    assert card["generator's attrition"] == "images 4, failed 2, without caption 0, truncated 1"
    assert card["measured, real"] == "listed 5, images 4, bad 1, not understood 0"
    assert card["without partner"] == "0 real, 1 generated images"
    assert card["pictures"] == "3 real, 1 generated that this report could not read"
    assert card["divergence"] == (
        "suppressed and exaggerated beyond a margin of 1.5-fold; aligned within 2-fold; false"
        " discovery rate 0.05; pairs of one caption or one real image count once; delta of the"
        " relative contrast, T = 0.4"
    )
    assert re.fullmatch(
        r"(images|measured) .*compared \d{4}-\d\d-\d\d \d\d:\d\d \(UTC\)", card["written"]
    )
    assert "pictures" not in run_card(tmp_path, comparison)


def test_every_line_stands_under_its_head(comparison, tmp_path):
    card = run_card(tmp_path, comparison, (0, 0))
    told = grouped(card)
    assert [head for head, _ in told] == list(GROUPS)
    assert sum(len(entries) for _, entries in told) == len(card)
    told = grouped({"captions": "2", "new": "line", "source": "imported"})
    assert [(head, [entry.name for entry in entries]) for head, entries in told] == [
        ("Data", ["source", "captions"]), ("More", ["new"])
    ]  # fmt: skip


@pytest.mark.parametrize(("is_sound", "outcome"), [(True, PASSED), (False, FAILED)])
def test_a_control_passes_or_fails(is_sound, outcome):
    control = RELIABILITY["control"] | {"is_sound": is_sound}
    ((head, (entry,)),) = grouped(reliability({"control": control}))
    assert head == "Controls" and entry.outcome == outcome
    assert entry.text.startswith(f"{outcome}: ")
    assert [e.outcome for _, entries in grouped({"pairs": "4"}) for e in entries] == [""]
