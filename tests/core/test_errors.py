"""What the program tells its user: flags that exist, and text that reads right."""

import ast
import pathlib
import re

import pytest

import bsjax
from bsjax import main, presets
from bsjax.core.config import flatten

PACKAGE = pathlib.Path(bsjax.__file__).parent
ERRORS = ("UserError", "UsageError")
# Of other programs, named in what to do.
FOREIGN_FLAGS = {"--shm-size"}
KEYS = set(flatten(presets.experiment()))
SECTIONS = {key.rpartition(".")[0] for key in KEYS} - {""}


def texts():
    """(place, text) of every string of the package; what is filled in is a %."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "%" for v in node.values]
                yield place, "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield place, node.value


def raised():
    """(place, text) of every error for the user that is written out where it is raised."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            if getattr(node.func, "id", "") not in ERRORS:
                continue
            found = node.args[0]
            if isinstance(found, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "%" for v in found.values]
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", "".join(parts)
            elif isinstance(found, ast.Constant):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", found.value


def test_every_key_that_a_text_names_exists():
    n_keys = 0
    for place, text in texts():
        for name in re.findall(r"--config\.([a-z_.{},%]+)", text):
            name = name.rstrip(".,")
            if "%" in name or "{" in name:
                section = name.partition(".")[0]
                assert section.strip("%") == "" or section[0] in "{%" or section in SECTIONS, place
                continue
            # Half of a name that another string goes on with ends in a dot.
            assert name in KEYS | SECTIONS or name == "", f"{place}: --config.{name}"
            n_keys += 1
    assert n_keys > 80


def test_every_flag_that_an_error_names_exists():
    known = {f"--{name}" for name in main.FLAGS} | FOREIGN_FLAGS
    scenes = {"--start"}  # of the training of the scenes' networks, which has a door of its own
    for place, text in raised():
        for name in re.findall(r"(?<![\w-])--[a-z][a-z_.-]*", text):
            if not name.startswith("--config."):
                assert name.rstrip(".") in known | scenes, f"{place}: {name}"


@pytest.mark.parametrize(("place", "text"), list(raised()))
def test_an_error_reads_right(place, text):
    assert "\\" not in text.replace("\\n", "\\"), place
    assert text.count('"') % 2 == 0 and text.count("`") % 2 == 0, place
    assert text.count("(") == text.count(")"), place
    assert "  " not in text and text == text.strip(), place
    assert text[-1].isalnum() or text[-1] in ')`%"', f"{place} ends in {text[-1]!r}"
