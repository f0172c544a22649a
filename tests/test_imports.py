"""Imports go one way, and only stages see a ConfigDict."""

import ast
import pathlib

import pytest

import bsjax

ROOT = pathlib.Path(bsjax.__file__).parent
MAY_IMPORT = {
    "core": set(),
    "models": {"core"},
    "data": {"core"},
    "stats": {"core"},
    "sae": {"core"},
    "convert": {"models", "sae", "core"},  # it makes parameters of both
    "report": {"stats", "core"},
    "generators": {"convert", "models", "core"},
}
KNOW_CONFIG_DICT = {"core/config.py", "presets.py", "pipeline.py", "main.py"}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def imported(name):
    """Modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below(package):
    files = [name for name in FILES if name.startswith(f"{package}/")]
    assert files
    for name in files:
        for module in imported(name):
            parts = module.split(".")
            if parts[0] == "bsjax" and (ROOT / parts[1]).is_dir():
                assert parts[1] in MAY_IMPORT[package] | {package}, f"{name} imports {module}"


def test_only_stages_know_config_dicts_and_nothing_imports_torch():
    for name in FILES:
        modules = {module.split(".")[0] for module in imported(name)}
        assert not modules & {"torch", "tensorflow"}, name
        if not name.startswith("stages/") and name not in KNOW_CONFIG_DICT:
            assert "ml_collections" not in modules, name
