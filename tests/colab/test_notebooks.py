"""Notebooks call the package and define nothing, are stored without outputs, and run."""

import ast
import json
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "colab"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    for cell in code_cells(path):
        assert not cell["outputs"]
        assert cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_is_defined(path):
    for cell in code_cells(path):
        source = "".join(cell["source"]).replace("%pip", "pass  # pip")
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # of the notebook's machinery
def test_runs(path, tmp_path):
    papermill = pytest.importorskip("papermill")
    papermill.execute_notebook(
        path,
        tmp_path / path.name,
        parameters={"N_SCENES": 40},
        cwd=tmp_path,
        progress_bar=False,
        execution_timeout=900,
    )
    assert (tmp_path / "runs" / "scenes" / "report" / "index.html").is_file()
