"""The explorer as one text: for notebooks whose browser reaches neither files nor ports here.

Scripts, style and all data of a report stand in the page itself. Nothing that is not the report's
own is run: the data are calls that `encode.write_data` made of JSON.
"""

import pathlib
import re

from bsjax.core.errors import UserError

MOST_MEGABYTES = 64  # that a notebook can hold and a browser takes as one text
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# As the page's own, but for what comes from beside it.
INLINE = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; script-src'
    " 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:;"
    " base-uri 'none'; form-action 'none'\">"
)
ENDS = re.compile("<(/script|!--)", re.IGNORECASE)  # what would end a script, or hide its end
SCRIPT = re.compile(r'<script defer src="([\w.]+)"></script>\n?')
STYLE = re.compile(r'<link rel="stylesheet" href="([\w.]+)">')


def as_one_page(folder: pathlib.Path) -> str:
    """The page of a report with everything in it.

    Args:
      folder: of the report.

    Raises:
      UserError: more than MOST_MEGABYTES.
    """
    data = sorted((folder / "data").rglob("*.js"))
    html = (folder / "index.html").read_text(encoding="utf-8")
    beside = [folder / name for name in SCRIPT.findall(html) + STYLE.findall(html)]
    size = sum(path.stat().st_size for path in [*data, *beside]) / 1e6
    if size > MOST_MEGABYTES:
        raise UserError(
            f"{folder} is {size:.0f} MB, more than a notebook should hold ({MOST_MEGABYTES} MB);"
            " run `bsjax explore` where its port can be reached, or download the folder and open"
            " index.html"
        )
    kept = [f"bsjaxKept[{_name(path, folder)!r}] = () => {{ {_script(path)} }};\n" for path in data]
    scripts = [f"<script>window.bsjaxKept = {{}};\n{''.join(kept)}</script>\n"]
    scripts += [f"<script>{_script(folder / name)}</script>\n" for name in SCRIPT.findall(html)]
    html = SCRIPT.sub("", POLICY.sub(lambda _: INLINE, html))
    html = STYLE.sub(lambda found: f"<style>{_text(folder / found[1])}</style>", html)
    return html.replace("</body>", f"{''.join(scripts)}</body>")


def _name(path: pathlib.Path, folder: pathlib.Path) -> str:
    """Of a data file, as the page asks for it."""
    return path.relative_to(folder / "data").with_suffix("").as_posix()


def _script(path: pathlib.Path) -> str:
    """A script that no markup in its texts can end."""
    return ENDS.sub(r"<\\\1", _text(path))


def _text(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8").strip()
