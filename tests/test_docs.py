"""README and docs: every command can be typed, the Python runs, every link leads somewhere."""

import math
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

import bsjax
from bsjax import pipeline, presets
from bsjax.cli import arguments, configs, help
from bsjax.cli.commands import answer
from bsjax.core.ranges import KEYS
from bsjax.stats import verdicts
from tests import documents
from tests.documents import PAGES, REPO

PLACEHOLDERS = re.compile(r"^(STAGE|NAME|FILE|W|X)$|=(NAME|FILE|DIR|KEY|VALUE|X)\b|\[")
TARGETS = re.compile(r"^([\w-]+):", re.M)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def ids(page):
    return page.relative_to(REPO).as_posix()


@pytest.mark.filterwarnings("ignore:the load_module")  # of absl, on its way out since Python 3.12
@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_command_can_be_typed(page):
    for words in documents.commands(page):
        line, program = " ".join(words), words[0]
        if program == "make":
            targets = set(TARGETS.findall((REPO / "Makefile").read_text()))
            assert {word for word in words[1:] if "=" not in word} <= targets, line
        elif program == "python":
            check_python(words[1:], line)
        else:
            check_bsjax(words[1:], line)


def check_python(words, line):
    if words[0] == "-m":
        assert (REPO / (words[1].replace(".", "/") + ".py")).is_file(), line
        return
    script = REPO / words[0]
    assert script.is_file(), line
    known = script.read_text()
    for word in words[1:]:
        assert f'"{word.partition("=")[0]}"' in known, f"{line}: {word}"


def check_bsjax(words, line):
    stage = words[0] if words else ""
    if stage not in pipeline.BY_NAME:
        is_known = stage in help.COMMANDS or stage in ("--help", "--version", "-h", "STAGE")
        assert is_known, line
        if stage == "configs" and len(words) > 1 and not PLACEHOLDERS.search(words[1]):
            assert answer(words), line
        return
    if any(PLACEHOLDERS.search(word) for word in words[1:]) or "--help" in words:
        words = [word for word in words if not PLACEHOLDERS.search(word)]
    given = [word.partition("=")[0] for word in words[1:]]
    known = {f"--{flag.name}" for flag in arguments.of_stage(stage)} | {"--help"}
    keys = {f"--config.{key}" for key in KEYS}
    assert set(given) <= known | keys, f"{line}: {set(given) - known - keys}"
    for word in words[1:]:
        name, _, value = word.partition("=")
        if name == "--config":
            path = pathlib.Path(configs.resolve(value).partition(":")[0])
            assert path.is_file(), line
    if "--config" in given and "--workdir" in given:
        values = flags.FlagValues()
        arguments.define_flags(values)
        arguments.parse_flags(["bsjax", *words[1:]], stage, values)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_example_of_verdicts_by_hand():
    """What docs/verdicts.md tells of three concepts, by its own formulas and by bsjax."""
    page = REPO / "docs" / "verdicts.md"
    rows = documents.table(page, "## An example, by hand")
    assert [row[0] for row in rows] == ["A", "B", "C"]
    real, generated = np.zeros((20, 3)), np.zeros((20, 3))
    real[:14, 0] = real[:12, 1] = generated[:12, 1] = real[17:, 2] = 2
    found = bsjax.compare_codes(real, generated).concepts.to_pylist()
    for row, concept in zip(rows, found, strict=True):
        ratio, *ends = (f"{np.exp(concept[name]):.3g}" for name in ("log_ratio", "low", "high"))
        assert row[3] == f"{ratio} [{', '.join(ends)}]"
        for cell, name in zip(row[4:6], ("q_material", "q_direction"), strict=True):
            told = float(cell) if cell else math.nan
            assert concept[name] == pytest.approx(told, rel=2e-3, nan_ok=True)
        assert concept["delta"] == pytest.approx(float(row[6]), rel=2e-3)
        assert concept["verdict"] == row[7]
        assert str(concept["n_real"]) == row[1].split()[0]
    assert [each["verdict_paper"] for each in found] == ["suppressed", "between", "suppressed"]
    text = " ".join(page.read_text().split())
    for formula, value in (
        ("(0 + 1) / (28 + 1) = 0.0345", 1 / 29),
        ("0.025^(-1/N) - 1 = 0.301 for A's 14 images and 2.42 for C's 3", 0.025 ** (-1 / 14) - 1),
        ("0.6^14 = 0.000784", 0.6**14),
        ("2 / 2^14 = 0.000122", 2 / 2**14),
        ("sqrt(50/625 + 50/625 - 2 x 48/625) = 0.08", (4 / 625) ** 0.5),
        ("ln 2 lies 8.7 of them away", math.log(2) / 0.08),
    ):
        assert formula in text
        told = [float(number) for number in re.findall(r"\d+\.\d+", formula)]
        assert min(abs(number / value - 1) for number in told) < 5e-3, formula
    least = next(n for n in range(1, 99) if 2 * (1.5 / 2.5) ** n <= 0.01)
    assert f"from N = {least} on" in text and least == verdicts.least_images(1.5)


def test_no_page_says_that_nothing_differs_and_all_tell_every_verdict():
    roots = ("bsjax", "configs", "colab", "docs")
    files = [path for root in roots for path in (REPO / root).rglob("*") if path.is_file()]
    kinds = {".py", ".md", ".js", ".j2", ".css", ".html", ".ipynb"}
    spoken = [path for path in files if path.suffix in kinds] + [REPO / "README.md"]
    assert len(spoken) > 100
    allowed = REPO / "bsjax" / "stats" / "verdicts.py"  # says that it is never said
    found = [path for path in spoken if re.search("no[ _]difference", path.read_text(), re.I)]
    assert found in ([], [allowed])
    page = (REPO / "docs" / "verdicts.md").read_text()
    for kind in verdicts.KINDS:
        assert re.search(rf"^\|[^|]*\b{kind}\b", page, re.M), kind


def test_the_python_of_readme_runs(tmp_path):
    (code,) = documents.python_blocks(REPO / "README.md")
    assert sum(bool(line) for line in code.splitlines()) <= 10
    scenes = presets.SCENES
    code = documents.on_what_comes_with_bsjax(
        code,
        str(presets.EMOJI / "real"),
        str(scenes / "encoder"),
        str(scenes / "sae"),
        str(tmp_path / "out"),
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "report" / "index.html").is_file()
