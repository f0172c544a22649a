"""What the program tells its user: flags that exist, and text that reads right."""

import ast
import pathlib
import re

import pytest

import bsjax
from bsjax import main, presets
from bsjax.api.arguments import in_arguments, naming_arguments
from bsjax.core.config import flatten
from bsjax.core.errors import UsageError, UserError, naming

PACKAGE = pathlib.Path(bsjax.__file__).parent
ERRORS = ("UserError", "UsageError")
# Of other programs, named in what to do.
FOREIGN_FLAGS = {"--shm-size", "--flagfile"}  # of docker, of absl
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
            found, place = node.args[0], f"{path.relative_to(PACKAGE)}:{node.lineno}"
            fields = [field.value for field in node.args[1:] if isinstance(field, ast.Constant)]
            if isinstance(found, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "%" for v in found.values]
                text = "".join(parts)
            elif isinstance(found, ast.Constant):
                text = found.value
            else:
                continue
            for field in fields:
                text = text.replace(f"{{{field}}}", field)
            yield place, text


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
    assert text[-1].isalnum() or text[-1] in ')]`%"', f"{place} ends in {text[-1]!r}"
    # What stands in braces is the name of an argument, which the error must know.
    assert not re.search(r"\{[a-z_]+\}", text), place


def test_an_error_names_its_arguments_or_the_flags_for_them():
    error = UserError("{crop}=90: expected at most {resize}=64, not {other}", "crop", "resize")
    assert str(error) == "crop=90: expected at most resize=64, not {other}"
    assert (error.field, error.fields) == ("crop", ("crop", "resize"))
    assert UserError("plain").field == ""
    flags = {"crop": "--config.encoder.crop", "path": "--config.real.path"}
    with pytest.raises(UserError) as told, naming(flags):
        raise error
    assert str(told.value) == "--config.encoder.crop=90: expected at most resize=64, not {other}"
    assert told.value.fields == ("--config.encoder.crop", "resize")
    # Back again: a flag in a text is called what the library calls it; the longer one first.
    back = UserError("set --config.a.b or --config.a").named(
        {"--config.a": "x", "--config.a.b": "y"}
    )
    assert str(back) == "set y or x"
    with pytest.raises(UsageError, match="^name$"), naming({"field": "name"}):
        raise UsageError("{field}", "field")


def test_what_names_arguments_finds_every_flag():
    text = (
        "--config.sae.weights=x.pth: set --config.{real,generated}.path, --config.real.captions=all"
        " or --config.encoder.dtype=float32, --overwrite (--config.overwrite), --workdir;"
        " train.n_active=9, sae.weights=y, compare.fdr was 1"
    )
    expected = (
        "source=x.pth: set images, all_captions=True or dtype=float32, overwrite=True"
        " (overwrite=True), workdir; n_active=9, source=y, compare.fdr was 1"
    )
    assert in_arguments(text, {"sae.weights": "source"}) == expected
    names = {"sae.weights": "source"}
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"), naming_arguments(names):
        raise UserError(text)
