"""What is installed: a wheel that works outside of the clone, with each Python that it names."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile

import pytest

from bsjax import __version__
from bsjax.cli import configs
from tests import documents

REPO = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())
VERSIONS = ("3.11", "3.12", "3.13")
PARTS = ("bsjax", "configs", "launch", "pyproject.toml", "README.md", "LICENSE")


def test_every_package_is_installed():
    setuptools = PROJECT["tool"]["setuptools"]
    folders = {path.parent.relative_to(REPO) for path in (REPO / "bsjax").rglob("*.py")}
    found = {".".join(folder.parts) for folder in folders} | {"bsjax.configs", "bsjax.launch"}
    assert set(setuptools["packages"]) == found
    assert setuptools["package-dir"] == {"bsjax.configs": "configs", "bsjax.launch": "launch"}
    for folder in (REPO / "configs", REPO / "launch", *(REPO / folder for folder in folders)):
        assert (folder / "__init__.py").is_file(), folder


def test_every_python_that_is_named_is_tried():
    named = [
        line.rpartition(" ")[2]
        for line in PROJECT["project"]["classifiers"]
        if line.startswith("Programming Language :: Python :: 3.")
    ]
    assert tuple(named) == VERSIONS
    assert PROJECT["project"]["requires-python"] == f">={VERSIONS[0]}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree, built from a copy."""
    folder = tmp_path_factory.mktemp("build")
    for part in PARTS:
        source = REPO / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / "source" / part, ignore=ignored)
        else:
            shutil.copy(source, folder / "source" / part)
    call(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        f"--wheel-dir={folder}", str(folder / "source"), cwd=folder,
    )  # fmt: skip
    (path,) = folder.glob("bsjax-*.whl")
    return path


def test_the_wheel_holds_what_starts_bsjax_elsewhere(wheel):
    with zipfile.ZipFile(wheel) as content:
        inside = {name for name in content.namelist() if name.startswith("bsjax/launch/")}
        for path in (REPO / "launch").iterdir():
            if path.is_file():
                assert content.read(f"bsjax/launch/{path.name}") == path.read_bytes()
    assert not any("__pycache__" in name for name in inside)


def call(*command, cwd):
    """Output of a command that sees nothing of this tree; it must succeed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


def interpreter(version):
    """A Python of this version; None where there is none."""
    own = ".".join(map(str, sys.version_info[:2]))
    found = [sys.executable] if version == own else []
    found += [shutil.which(f"python{version}") or ""]
    found += map(str, pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for path in filter(None, found):
        shown = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([path, "-c", shown], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return path
    return None


def install(version, wheel, folder):
    """An environment with the wheel and what it needs; returns its folder of programs."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    environment, own = folder / "environment", version == "{}.{}".format(*sys.version_info)
    call(python, "-m", "venv", str(environment), cwd=folder)
    program = environment / "bin" / "python"
    pip = [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if own:
        call(*pip, "--no-deps", "--no-index", str(wheel), cwd=folder)
        # It sees what is installed here, but for what is there as a link to a tree.
        places = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        site = environment / "lib" / f"python{version}" / "site-packages" / "shared.pth"
        site.write_text("\n".join(places))
    else:
        done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True, cwd=folder)
        if done.returncode:
            pytest.skip(f"Python {version}: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return environment / "bin"


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_wheel_works_outside_of_the_clone(version, wheel, tmp_path):
    programs = install(version, wheel, tmp_path)
    where = call(programs / "python", "-c", "import bsjax; print(bsjax.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    bsjax, workdir = programs / "bsjax", tmp_path / "run"
    assert call(bsjax, "--version", cwd=tmp_path) == f"bsjax {__version__}\n"
    listed = call(bsjax, "configs", cwd=tmp_path)
    assert all(f"\n{name}: " in listed for name in configs.names())
    assert "usage: bsjax STAGE" in call(bsjax, "--help", cwd=tmp_path)
    (tmp_path / "pod.sh").write_text(call(bsjax, "launch", "tpu_pod.sh", cwd=tmp_path))
    assert "--dry-run" in call("bash", "pod.sh", "--help", cwd=tmp_path)
    printed = call(bsjax, "run", "--config=scenes:tiny", f"--workdir={workdir}", cwd=tmp_path)
    assert printed.endswith(f"report: {workdir / 'report' / 'index.html'}\n")
    shutil.rmtree(workdir / "report")
    assert call(bsjax, "report", f"--workdir={workdir}", "--quiet", cwd=tmp_path) == ""
    assert (workdir / "report" / "index.html").is_file()
    assert (workdir / "report" / "figures" / "scenes_map.png").is_file()
    shutil.rmtree(tmp_path / "environment")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of an environment of this Python with the wheel in it."""
    folder = tmp_path_factory.mktemp("installed")
    return install("{}.{}".format(*sys.version_info), wheel, folder)


@pytest.mark.slow
def test_the_python_of_readme_runs_where_it_is_installed(installed, tmp_path):
    (code,) = documents.python_blocks(REPO / "README.md")
    show = "from bsjax import presets; print(presets.EMOJI, presets.SCENES)"
    emoji, scenes = call(installed / "python", "-c", show, cwd=tmp_path).split()
    assert not emoji.startswith(str(REPO))
    code = documents.on_what_comes_with_bsjax(
        code, f"{emoji}/real", f"{scenes}/encoder", f"{scenes}/sae", str(tmp_path / "out")
    )
    call(installed / "python", "-c", code, cwd=tmp_path)
    assert (tmp_path / "out" / "report" / "index.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(documents.NOTEBOOKS))
def test_the_notebook_runs_where_it_is_installed(name, installed, tmp_path):
    parameters, left = documents.NOTEBOOKS[name]
    code = documents.notebook_code(REPO / "colab" / name, parameters)
    path = tmp_path / "notebook.py"
    path.write_text(f"import matplotlib\nmatplotlib.use('Agg')\n{code}")
    call(installed / "python", str(path), cwd=tmp_path)
    assert (tmp_path / left).is_file()
