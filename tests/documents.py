"""What README and docs tell a reader to type."""

import json
import pathlib
import re
import shlex
from collections.abc import Iterator

REPO = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted([REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
INLINE = re.compile(r"`((?:bsjax|python|make) [^`]+)`")


def commands(page: pathlib.Path) -> Iterator[list[str]]:
    """Command lines in a page's blocks and within its sentences, as words."""
    text = page.read_text()
    lines = [
        line
        for language, block in BLOCK.findall(text)
        if language != "python"
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += [" ".join(line.split()) for line in INLINE.findall(BLOCK.sub("", text))]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words and words[0] in ("bsjax", "python", "make"):
            yield words


def python_blocks(page: pathlib.Path) -> list[str]:
    """Its blocks of Python."""
    return [block for language, block in BLOCK.findall(page.read_text()) if language == "python"]


def table(page: pathlib.Path, heading: str) -> list[list[str]]:
    """Rows of the first table below a heading, cell by cell, without its head."""
    text = page.read_text().partition(f"{heading}\n")[2]
    lines = [line for line in text.partition("\n#")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def notebook_code(path: pathlib.Path) -> str:
    """A notebook's cells of code as one program, without those that install anything."""
    cells = json.loads(path.read_text())["cells"]
    texts = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return "\n".join(text for text in texts if "%pip" not in text)


def on_what_comes_with_bsjax(code: str, images: str, encoder: str, sae: str, out: str) -> str:
    """A block with names of the scenes world instead of those that only a reader has."""
    for name, own in {
        "facebook/dinov2-with-registers-base": encoder,
        "matybohacek/RA-SAE-DINOv2-32k": sae,
        '"REAL", encoder, sae': f'r"{images}", encoder, sae, limit=6',
        '"GENERATED", encoder, sae': f'r"{images}", encoder, sae, limit=6',
        "runs/mine": out,
    }.items():
        code = code.replace(name, own)
    return code
