"""Notebooks call the package and define nothing, are stored without outputs, run, and show."""

import ast
import base64
import importlib
import io
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

import bsjax
from bsjax import presets
from tests import documents

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "colab"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Beside bsjax itself: settings, what comes with the package, and the scenes world.
MODULES = {"bsjax": ("presets",), "bsjax.presets": ("SCENES",), "bsjax.data": ("scenes",)}
DRAWS = re.compile(r"plt\.(subplots|figure)\(|\bresult\.plot\(")
FALLS_BACK = "No GPU to draw with"
SMALL = {
    "ENCODER": str(presets.SCENES / "encoder"),
    "SAE": str(presets.SCENES / "sae"),
    "REAL": str(presets.EMOJI / "real"),
    "N_IMAGES": 12,
    "BATCH": 12,
}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def nodes(path):
    for cell in documents.code_cells(path):
        yield from ast.walk(ast.parse(documents.source_of(cell)))


def execute(path, folder, parameters):
    """Runs a notebook in a folder; returns its cells of code with their outputs, and all text."""
    papermill = pytest.importorskip("papermill")
    papermill.execute_notebook(
        path,
        folder / path.name,
        parameters=parameters,
        cwd=folder,
        progress_bar=False,
        execution_timeout=900,
    )
    cells = documents.code_cells(folder / path.name)
    outputs = [output for cell in cells for output in cell["outputs"]]
    text = "".join("".join(each["text"]) for each in outputs if each.get("name") == "stdout")
    return cells, text


def require_pictures(cells):
    """Every cell that draws shows a picture on which there is something."""
    drawing = [cell for cell in cells if DRAWS.search("".join(cell["source"]))]
    assert len(drawing) >= 3
    for cell in drawing:
        shown = [each["data"]["image/png"] for each in cell["outputs"]
                 if "image/png" in each.get("data", ())]  # fmt: skip
        assert shown, "".join(cell["source"])
        for png in shown:
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"))
            assert pixels.std() > 5


def test_every_notebook_has_a_quick_form():
    assert [path.name for path in NOTEBOOKS] == sorted(documents.NOTEBOOKS)


@each_notebook
def test_outputs_are_stripped(path):
    for cell in documents.code_cells(path):
        assert not cell["outputs"]
        assert cell["execution_count"] is None


@each_notebook
def test_nothing_is_defined(path):
    for node in nodes(path):
        assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)


@each_notebook
def test_cells_are_short(path):
    for cell in documents.code_cells(path):
        assert len(cell["source"]) <= 18, "".join(cell["source"])


@each_notebook
def test_only_the_public_interface_is_named(path):
    for node in nodes(path):
        if isinstance(node, ast.Import):
            assert all(a.name == "bsjax" for a in node.names if a.name.startswith("bsjax"))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("bsjax"):
            assert {a.name for a in node.names} <= set(MODULES[node.module])
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_")
            if isinstance(node.value, ast.Name) and node.value.id == "bsjax":
                assert node.attr in bsjax.__all__


def test_modules_that_are_named_are_there():
    for module, names in MODULES.items():
        for name in names:
            assert hasattr(importlib.import_module(module), name) or importlib.import_module(
                f"{module}.{name}"
            )


@pytest.mark.slow
@each_notebook
@pytest.mark.filterwarnings("ignore")  # of the notebook's machinery
def test_runs(path, tmp_path):
    parameters, left = documents.NOTEBOOKS[path.name]
    cells, text = execute(path, tmp_path, parameters)
    require_pictures(cells)
    assert (FALLS_BACK in text) == path.name.startswith("02")
    assert (tmp_path / left).is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_of_the_hub_draws_where_it_can(tmp_path):
    """The way of a GPU, with a small model in place of the hub's."""
    drawn_by = {
        "GENERATOR": str(presets.SCENES / "generator"),
        "SETTINGS": {"steps": 2, "guidance": 1.5, "dtype": "float32"},
        "ON_CPU_TOO": True,
    }
    cells, text = execute(FOLDER / "02_your_own_images.ipynb", tmp_path, SMALL | drawn_by)
    require_pictures(cells)
    assert FALLS_BACK not in text
    assert len(list((tmp_path / "data" / "generated").glob("*.png"))) == SMALL["N_IMAGES"]
    assert not (tmp_path / "data" / "real").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_folders_of_ones_own_are_taken_as_they_are(tmp_path):
    made = {"GENERATED": str(presets.EMOJI / "generated")}
    cells, text = execute(FOLDER / "02_your_own_images.ipynb", tmp_path, SMALL | made)
    require_pictures(cells)
    assert FALLS_BACK not in text
    assert not (tmp_path / "data").exists()
    assert (
        bsjax.open_results(tmp_path / "runs" / "mine")
        .measures()
        .paths[0]
        .startswith(str(presets.EMOJI / "real"))
    )
