"""The page's modules as one script: browsers load no modules from disk."""

import importlib.resources
import pathlib
import re

from bsjax.core.artifacts import atomic_path

STATIC = importlib.resources.files("bsjax.report.explorer") / "static"
# In the order in which they use each other.
MODULES = ("faults", "data", "state", "elements", "marked", "concepts", "csv", "opening", "colour",
           "called", "pictures", "originals", "glpoints", "pixels", "hands", "scatter", "axes",
           "filter", "marks", "labels", "map",
           "stress", "findings", "panel", "rows", "table", "moves", "models", "listing", "tiles",
           "images", "image", "about", "app")  # fmt: skip
BESIDE = ("index.html", "explorer.css")
IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
EXPORT = re.compile(r"^export ", re.MULTILINE)


def bundle() -> str:
    """All modules in one scope."""
    parts = ['"use strict";\n(() => {\n']
    for name in MODULES:
        source = (STATIC / f"{name}.js").read_text(encoding="utf-8")
        parts.append(EXPORT.sub("", IMPORT.sub("", source)))
    return "".join([*parts, "})();\n"])


def write_static(folder: pathlib.Path) -> None:
    """The page itself, its style and scripts."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: (STATIC / name).read_text(encoding="utf-8") for name in BESIDE}
    for name, text in (texts | {"explorer.js": bundle()}).items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    (folder / "plotly.min.js").unlink(missing_ok=True)  # of a report of an earlier version
