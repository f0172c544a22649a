"""README and docs: every command can be typed, the Python runs, every link leads somewhere."""

import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags

from bsjax import pipeline, presets
from bsjax.cli import arguments, configs, help
from bsjax.cli.commands import answer
from bsjax.core.ranges import KEYS
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
