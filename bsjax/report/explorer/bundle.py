"""The page's modules as one script: browsers load no modules from disk."""

import importlib.resources
import pathlib
import re
import shutil

import plotly

from bsjax.core.artifacts import atomic_path

STATIC = importlib.resources.files("bsjax.report.explorer") / "static"
PLOTLY_JS = pathlib.Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
STYLE_ID = re.compile(r'getElementById\("([0-9a-f]{32,})"\)')
# In the order in which they use each other.
MODULES = ("faults", "data", "state", "elements", "marked", "concepts", "csv", "opening", "colour",
           "called", "pictures", "originals", "points", "filter", "marks", "labels", "glide", "map",
           "stress", "findings", "panel", "rows", "table", "moves", "models", "listing", "tiles",
           "images", "image", "about", "app")  # fmt: skip
IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
EXPORT = re.compile(r"^export ", re.MULTILINE)


def bundle() -> str:
    """All modules in one scope."""
    parts = ['"use strict";\n(() => {\n']
    for name in MODULES:
        source = (STATIC / f"{name}.js").read_text(encoding="utf-8")
        parts.append(EXPORT.sub("", IMPORT.sub("", source)))
    return "".join([*parts, "})();\n"])


def page() -> str:
    """index.html, in which plotly finds the styles of its maps, which nothing here uses, present.

    It would otherwise write them into the page, which the page's policy forbids.
    """
    ids = sorted(set(STYLE_ID.findall(PLOTLY_JS.read_text(encoding="utf-8"))))
    present = "\n".join(f'<meta id="{each}">' for each in ids)
    return (STATIC / "index.html").read_text(encoding="utf-8").replace("<!-- styles -->", present)


def write_static(folder: pathlib.Path) -> None:
    """The page itself, its style and scripts."""
    folder.mkdir(parents=True, exist_ok=True)
    style = (STATIC / "explorer.css").read_text(encoding="utf-8")
    texts = {"index.html": page(), "explorer.css": style, "explorer.js": bundle()}
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with atomic_path(folder / PLOTLY_JS.name) as temporary:
        shutil.copyfile(PLOTLY_JS, temporary)
