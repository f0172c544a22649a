"""One room for each thing, and none too large to be seen at a glance."""

import ast
import pathlib

import pytest

import bsjax

ROOT = pathlib.Path(bsjax.__file__).parent
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
MOST_LINES, MOST_OF_A_FUNCTION = 400, 80
REASON = "# Over 80 lines: "


def too_long(text):
    """Functions of more lines than a reader keeps in mind, that do not say why above them."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            n_lines = node.end_lineno - node.lineno + 1
            above = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 2
            while above >= 0 and lines[above].lstrip().startswith("#"):
                reason = lines[above].strip()
                if reason.startswith(REASON) and len(reason) > len(REASON):
                    break
                above -= 1
            else:
                if n_lines > MOST_OF_A_FUNCTION:
                    yield f"{node.name}: {n_lines} lines"


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_stay_small(module):
    text = (ROOT / module).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert list(too_long(text)) == []


def test_a_long_function_is_seen_and_a_reason_lets_it_pass():
    long = "def f():\n" + "    x = 1\n" * MOST_OF_A_FUNCTION
    assert list(too_long(long)) == [f"f: {MOST_OF_A_FUNCTION + 1} lines"]
    assert list(too_long(long.removesuffix("    x = 1\n"))) == []
    assert list(too_long(f"{REASON}it is a table.\n{long}")) == []
    assert list(too_long(f"{REASON}\n{long}")) != []
