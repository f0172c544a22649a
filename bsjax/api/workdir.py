"""Workdirs: what a run left in one, and runs by config."""

import dataclasses
import os
import pathlib
import runpy
import tempfile
from typing import Any

import ml_collections
from etils import epath

from bsjax import presets
from bsjax.api.arguments import naming_arguments
from bsjax.api.comparison import FIELDS, Comparison
from bsjax.cli import configs
from bsjax.core import lock, rng
from bsjax.core.artifacts import CONTROL, REAL, list_finished
from bsjax.core.config import validate
from bsjax.core.errors import UserError
from bsjax.results.comparisons import read_compared
from bsjax.results.measures import Measured, read_measured
from bsjax.stages import run as stage
from bsjax.stages.explore import show as show_workdir
from bsjax.stages.report import report as write_report


@dataclasses.dataclass(frozen=True)
class Results:
    """What lies in a workdir.

    Attributes:
      workdir: the folder.
      measured: names of the image sets that are measured.
      compared: names of the generated sets that are compared with the real one.
      controls: names of the measured controls: real images, changed.
    """

    workdir: str
    measured: tuple[str, ...]
    compared: tuple[str, ...]
    controls: tuple[str, ...] = ()

    def measures(self, name: str = REAL) -> Measured:
        """A measured image set, or a control.

        Raises:
          UserError: there is none of that name, or it is not what was written.
        """
        self._require(name, (*self.measured, *self.controls), "measured set")
        return read_measured(pathlib.Path(self.workdir) / "measures" / name)

    def comparison(self, name: str = "") -> Comparison:
        """A comparison with the real set; the name may be left out where there is one alone.

        Raises:
          UserError: there is none of that name, or it is not what was written.
        """
        if not name and len(self.compared) == 1:
            name = self.compared[0]
        self._require(name, self.compared, "comparison")
        found = read_compared(pathlib.Path(self.workdir), name)
        return Comparison(**{field.name: getattr(found, field.name) for field in FIELDS})

    def report(self) -> str:
        """Writes the explorer of all comparisons; returns the path of its index.html.

        Raises:
          UserError: there is no comparison.
        """
        root = pathlib.Path(self.workdir)
        with naming_arguments(), lock.hold(root, "report"):
            write_report(presets.experiment(), root)
        return str(root / "report" / "index.html")

    def _require(self, name: str, names: tuple[str, ...], what: str) -> None:
        if name not in names:
            there = ", ".join(names) or "none"
            raise UserError(
                f"{self.workdir} holds no {what} {{name}}={name!r}; expected one of {there}", "name"
            )


def open_results(workdir: str | os.PathLike) -> Results:
    """Opens the folder of a run, or one that `Comparison.save` wrote; reads tables when asked.

    Raises:
      UserError: no such folder, or nothing measured in it.
    """
    root = pathlib.Path(workdir).expanduser()
    if not root.is_dir():
        raise UserError(f"{{workdir}}={root} is no folder; set {{workdir}} to one", "workdir")
    measured, compared = (tuple(list_finished(root / part)) for part in ("measures", "comparisons"))
    if not measured and not compared:
        raise UserError(
            f"{{workdir}}={root} holds no finished measures or comparisons; set {{workdir}} to that"
            " of a run",
            "workdir",
        )
    controls = tuple(name for name in measured if name.startswith(CONTROL))
    sets = tuple(name for name in measured if name not in controls)
    return Results(str(root), sets, compared, controls)


def run(config: Any, workdir: str | os.PathLike) -> Results:
    """Runs an experiment, every stage of it: `bsjax run`. What is finished is not repeated.

    Args:
      config: of `bsjax.presets`, or NAME[:ARG] of one that comes with bsjax ("scenes:tiny";
        `bsjax configs` lists them), or FILE.py[:ARG] of one of your own.
      workdir: folder that holds every artifact.

    Raises:
      UserError: the first thing that its user can mend.
    """
    if isinstance(config, str | os.PathLike):
        config = _read_config(os.fspath(config))
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"{{config}} is a {type(config).__name__}; expected a ConfigDict of bsjax.presets, or"
            " NAME[:ARG] or FILE.py[:ARG] of one; give one of these",
            "config",
        )
    validate(config)
    rng.require_plain_settings()
    root = epath.Path(workdir).expanduser()
    with lock.hold(root, "run"):
        stage.run(config, root)
    return open_results(root)


def show(results: Any, height: int = 860) -> Any:
    """Shows the explorer in a notebook, Colab included; for the last line of a cell.

    Args:
      results: a workdir with a report, what `bsjax.open_results` or `bsjax.run` gave, or a
        comparison, of which a report is made.
      height: pixels.

    Raises:
      UserError: there is no report.
    """
    if isinstance(results, Comparison):
        folder = tempfile.mkdtemp(prefix="bsjax-")  # served until the notebook ends
        results.report(folder)
        return show_workdir(folder, height)
    return show_workdir(results.workdir if isinstance(results, Results) else results, height)


def _read_config(name: str) -> Any:
    try:
        with naming_arguments({"--config=": "config="}):
            path, _, argument = configs.resolve(name).partition(":")
            get_config = runpy.run_path(path).get("get_config")
            if get_config is None:
                raise UserError(f'{path} defines no get_config(arg=""); add it')
            return get_config(argument)
    except UserError as error:
        raise UserError(error, "config") from error
