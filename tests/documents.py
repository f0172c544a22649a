"""What README and docs tell a reader to type."""

import json
import pathlib
import re
import shlex
from collections.abc import Iterator

REPO = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted([REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
# Notebook -> what makes it small, and what it leaves.
NOTEBOOKS = {
    "01_quickstart.ipynb": ({"N_SCENES": 40}, "runs/scenes/report/index.html"),
    "02_your_own_images.ipynb": ({"N_IMAGES": 20}, "runs/mine/report/index.html"),
    "03_train_rasae.ipynb": (
        {"N_TRAIN": 200, "N_CONCEPTS": 64, "STEPS": 40, "N_SCENES": 24},
        "runs/rasae/sae/sae.safetensors",
    ),
    "04_read_the_results.ipynb": ({"N_SCENES": 24}, "runs/read/report/index.html"),
}
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


def code_cells(path: pathlib.Path) -> list[dict]:
    """A notebook's cells of code, as its file has them."""
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def source_of(cell: dict) -> str:
    """A cell's code, without what installs anything."""
    text = "".join(cell["source"])
    return text.partition("if importlib.util")[0] if "%pip" in text else text


def notebook_code(path: pathlib.Path, parameters: dict) -> str:
    """A notebook as one program with these parameters, which must be its own."""
    texts = []
    for cell in code_cells(path):
        texts.append(source_of(cell))
        if "parameters" in cell["metadata"].get("tags", ()):
            assert all(f"{name} = " in texts[-1] for name in parameters), path.name
            texts += [f"{name} = {value!r}" for name, value in parameters.items()]
    return "\n".join(texts)


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
