"""Every mistake is told with a way out: each text of a UserError says what to change."""

import ast
import pathlib
import re

import pytest

import bsjax

# What a user is told to do. A text without one of these leaves them alone with the fault.
WORDS = (
    "set|unset|run|save|fetch|download|train|take|use|add|remove|rename|mend|copy|put|close|choose"
    "|lower|raise|delete|free|measure|compare|import|export|leave|give|call|check|start|wait"
    "|install|change|begin|write|name|again|keys|key"
)
# What is put into a text and says it: of each, the places that give it its value do.
NAMES = (
    r"way_out|WAY_OUT|AGAIN|USAGE|suggestion|_?mend|did_you_mean|value\.why|refused\[0\]"
    r"|more if fewer"
)
WAYS_OUT = re.compile(rf"\b({WORDS})\b|\{{[^}}]*({NAMES})")
ROOT = pathlib.Path(bsjax.__file__).parent
CALLS = ("UserError", "UsageError")


def texts(path):
    """(line, text with the names of what is put into it) of each error with a text of its own."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in CALLS:
            argument = node.args[0] if node.args else None
            parts = (
                [n for n in ast.walk(argument) if isinstance(n, ast.Constant)] if argument else []
            )
            if any(isinstance(part.value, str) for part in parts):
                yield node.lineno, ast.unparse(argument)


@pytest.mark.parametrize("folder", sorted(p.name for p in ROOT.iterdir() if p.is_dir()) + ["."])
def test_each_error_says_what_to_change(folder):
    files = (ROOT / folder).rglob("*.py") if folder != "." else ROOT.glob("*.py")
    lacking = [
        f"{path.relative_to(ROOT)}, line {line}: {text}"
        for path in files
        for line, text in texts(path)
        if not WAYS_OUT.search(text)
    ]
    assert not lacking, "\n".join(lacking)
