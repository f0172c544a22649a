"""Imports go one way, and only stages and what makes their objects see a ConfigDict."""

import ast
import pathlib
import subprocess
import sys

import pytest

import bsjax
from bsjax.encoders.registry import FAMILIES

ROOT = pathlib.Path(bsjax.__file__).parent
MAY_IMPORT = {
    "core": set(),
    "models": {"core"},
    "data": {"core"},
    "stats": {"core"},
    "sae": {"core"},
    "convert": {"models", "sae", "core"},  # it makes parameters of both
    "ingest": {"results", "data", "convert", "core"},  # its tables may lie on the hub
    "results": {"data", "stats", "core"},
    "report": {"results", "stats", "core"},
    "generators": {"convert", "models", "core"},
    "encoders": {"convert", "models", "core"},
    "analysis": {"results", "data", "encoders", "sae", "stats", "core"},
    "experiment": {
        "analysis", "report", "results", "data", "generators", "encoders", "convert", "models",
        "sae", "stats", "core",
    },
}  # fmt: skip
# The RA-SAE as a module stands on the formulas of sae; training makes its parameters by it.
# The config asks the table of encoders which variants there are, in the functions that check it.
ALSO = {
    "models/rasae.py": {"sae"},
    "sae/train_step.py": {"models"},
    "core/config.py": {"encoders"},
}
KNOW_CONFIG_DICT = {
    "api/workdir.py",  # which runs one
    "core/config.py",
    "main.py",
    "pipeline.py",
    "presets.py",
}
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
                allowed = MAY_IMPORT[package] | ALSO.get(name, set()) | {package}
                assert parts[1] in allowed, f"{name} imports {module}"


def test_nothing_stands_on_the_interface_for_users():
    """api/ may import everything, stages among it; bsjax/__init__.py alone hands it out."""
    for name in FILES:
        if not name.startswith("api/") and name != "__init__.py":
            assert not any(m.startswith("bsjax.api") for m in imported(name)), name


def test_what_the_module_of_the_sae_stands_on_does_not_need_it():
    """models/rasae.py may import sae as long as nothing there that it imports leads back."""
    seen, left = set(), ["models/rasae.py"]
    while left:
        for module in imported(left.pop()):
            parts = module.split(".")
            for stop in (len(parts), len(parts) - 1):
                name = "/".join(parts[1:stop]) + ".py"
                if parts[0] == "bsjax" and name in FILES and name not in seen:
                    seen.add(name)
                    left.append(name)
    assert "sae/encoder.py" in seen
    assert not seen & {"models/rasae.py", "sae/train_step.py"}


def test_what_works_with_encoders_knows_none_by_name():
    """What they need of one, they ask of the protocol."""
    known = {*FAMILIES, "vision", "vision_transformer", "vision_config"}
    assert {"dinov2", "clip", "siglip"} <= known
    assert {f"encoders/{family}.py" for family in FAMILIES} <= set(FILES)
    for name in FILES:
        if name.startswith(("stages/", "experiment/", "analysis/", "report/", "api/")):
            parts = {part for module in imported(name) for part in module.split(".")}
            assert not parts & known, name


def test_only_stages_know_config_dicts_and_nothing_imports_torch():
    for name in FILES:
        modules = {module.split(".")[0] for module in imported(name)}
        assert not modules & {"torch", "tensorflow"}, name
        knows = name.startswith(("stages/", "experiment/", "cli/")) or name in KNOW_CONFIG_DICT
        if not knows:
            assert "ml_collections" not in modules, name


def test_serving_a_report_needs_no_encoder_and_old_names_are_the_same_modules():
    program = (
        "import sys, bsjax.stages.explore\n"
        "assert 'bsjax.encoders' not in sys.modules\n"
        "import bsjax.stages.recipe as old, bsjax.experiment.recipe as new\n"
        "from bsjax.stages import recipe\n"
        "assert old is new is recipe and new.__spec__.name == new.__name__\n"
        "import importlib; importlib.reload(new)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT.parent)
