"""The experiments that come with bsjax: configs/ of the repository, `bsjax.configs` as installed.

`--config=NAME[:ARG]` names one from anywhere; a path has .py or a separator.
"""

import ast
import os
import pathlib
import re
from typing import NamedTuple

from bsjax.cli.suggestions import did_you_mean
from bsjax.core.errors import UsageError

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
OPTIONS = "Options behind the colon:"
OPTION = re.compile(r" +:(?P<name>\S+) +(?P<text>.*)")


class Description(NamedTuple):
    """What a config file's docstring says."""

    title: str
    options: dict[str, str]  # as written behind the colon -> what it does


def folder(package: pathlib.Path = PACKAGE) -> pathlib.Path:
    """Where they lie: within the package where it is installed, beside it in a clone."""
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names(package: pathlib.Path = PACKAGE) -> list[str]:
    """All names, in order."""
    return sorted(path.stem for path in folder(package).glob("*.py") if path.stem != "__init__")


def is_path(name: str) -> bool:
    """Whether `--config=NAME` names a file instead of one that comes with bsjax."""
    return name.endswith(".py") or "/" in name or os.sep in name


def resolve(value: str) -> str:
    """FILE[:ARG] of what `--config=` names.

    Raises:
      UsageError: no such file, or none of that name comes with bsjax.
    """
    name, colon, arg = value.partition(":")
    if is_path(name):
        if not pathlib.Path(name).is_file():
            others = map(str, pathlib.Path(name).parent.glob("*.py"))
            raise UsageError(f"--config={name}: no such file{did_you_mean(name, others)}")
        return value
    if name not in names():
        is_local = pathlib.Path(f"{name}.py").is_file()
        suggestion = f"; did you mean {name}.py?" if is_local else did_you_mean(name, names())
        raise UsageError(
            f"--config={name}: no config of that name comes with bsjax{suggestion or ';'}"
            " `bsjax configs` lists them, and the name of a file ends in .py"
        )
    return f"{folder() / name}.py{colon}{arg}"


def describe(path: str | os.PathLike) -> Description:
    """Title and options of a config file, from its docstring; the file is not executed."""
    module = ast.parse(pathlib.Path(path).read_text(encoding="utf-8"))
    title, _, text = (ast.get_docstring(module) or "").partition("\n")
    options: dict[str, str] = {}
    name = ""
    for line in text.partition(OPTIONS)[2].splitlines():
        if found := OPTION.fullmatch(line):
            name = found["name"]
            options[name] = found["text"]
        elif name and line.startswith("  "):
            options[name] += f" {line.strip()}"
        else:
            name = ""
    return Description(title, options)


def listing() -> str:
    """All of them with title and options, as text."""
    lines = ["Experiments that come with bsjax; use one by --config=NAME[:OPTION,...]:", ""]
    for name in names():
        found = describe(folder() / f"{name}.py")
        lines.append(f"{name}: {found.title}")
        width = max(map(len, found.options), default=0)
        lines += [f"    :{option:<{width}}  {text}" for option, text in found.options.items()]
    lines += ["", "`bsjax configs NAME` prints the keys of one, each with its value and meaning."]
    return "\n".join(lines) + "\n"
