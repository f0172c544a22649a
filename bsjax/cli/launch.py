"""The scripts that start bsjax elsewhere: launch/ of the repository, `bsjax.launch` as installed.

`bsjax launch NAME > FILE` writes one where there is no clone.
"""

import pathlib

from bsjax.cli import configs
from bsjax.cli.suggestions import did_you_mean
from bsjax.core.errors import UsageError

# Read by scripts, at their line that says so; printed within them.
SHARED = "common.sh"
INCLUDES = 'source "${here}/common.sh"\n'
SHELLCHECK = "# shellcheck source=launch/common.sh\n"


def folder(package: pathlib.Path = configs.PACKAGE) -> pathlib.Path:
    """Where they lie: within the package where it is installed, beside it in a clone."""
    installed = package / "launch"
    return installed if installed.is_dir() else package.parent / "launch"


def names() -> list[str]:
    """All of them, in order."""
    hidden = (SHARED, "__init__.py")
    return sorted(p.name for p in folder().iterdir() if p.is_file() and p.name not in hidden)


def text(name: str) -> str:
    """One of them as a file that works alone; a name without what follows its dot does as well.

    Raises:
      UsageError: there is none of that name.
    """
    by_name = {each.partition(".")[0]: each for each in names()} | {each: each for each in names()}
    if name not in by_name:
        raise UsageError(
            f"launch {name!r}: no script of that name comes with bsjax"
            f"{did_you_mean(name, names())}; expected {' | '.join(names())}"
        )
    content = (folder() / by_name[name]).read_text(encoding="utf-8")
    shared = (folder() / SHARED).read_text(encoding="utf-8")
    return content.replace(SHELLCHECK, "").replace(INCLUDES, shared)


def title(name: str) -> str:
    """The first sentence of a file's comment."""
    lines = (folder() / name).read_text(encoding="utf-8").splitlines()
    comments = (line for line in lines if line.startswith("# ") and "shellcheck" not in line)
    return next(comments, "# ").removeprefix("# ").rstrip(".:")


def listing() -> str:
    """All of them with their titles, as text."""
    width = max(map(len, names()))
    lines = ["What starts bsjax elsewhere; `bsjax launch NAME > FILE` writes it:", ""]
    lines += [f"  {name:<{width}}  {title(name)}" for name in names()]
    lines += ["", "docs/launch/ has a page for each place."]
    return "\n".join(lines) + "\n"
