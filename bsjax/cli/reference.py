"""The keys of a config with value, range and meaning: for a terminal, and docs/configuration.md.

`python -m bsjax.cli.reference > docs/configuration.md` writes the page anew.
"""

import sys
from typing import Any

import ml_collections

from bsjax import presets
from bsjax.cli import configs
from bsjax.core.config import encoder_variants, flatten
from bsjax.core.ranges import KEYS, SECTIONS, expected_of

ORDER = list(KEYS)
INTRODUCTION = """# Configuration

Every key of an experiment. `--config=NAME[:OPTION,...]` names one of the experiments that come with
bsjax (`bsjax configs` lists them), `--config=FILE.py[:ARG]` one of your own, and
`--config.KEY=VALUE` changes a key of it. `bsjax configs NAME` prints what an experiment sets.
Defaults are those of `bsjax.presets.experiment()`. Written by `python -m bsjax.cli.reference`.
"""


def keys_of(value: str, config: ml_collections.ConfigDict) -> str:
    """The keys of one config, as text.

    Args:
      value: as `--config=` names it.
      config: what it gives.
    """
    found = configs.describe(configs.resolve(value).partition(":")[0])
    lines = [f"{value}: {found.title}"]
    width = max(map(len, found.options), default=0)
    lines += [f"    :{option:<{width}}  {text}" for option, text in found.options.items()]
    lines.append(f"Change a key of it by --config={value} --config.KEY=VALUE")
    for section, rows in _by_section(flatten(config)).items():
        lines += ["", f"{section or 'top'}: {SECTIONS.get(section, 'of this config alone')}"]
        for key, shown in rows.items():
            lines.append(f"  {f'{key} = {shown}':<40}  {_about(key)}".rstrip())
    return "\n".join(lines) + "\n"


def _about(key: str) -> str:
    if key not in KEYS:
        return ""
    expected = expected_of(key)
    return KEYS[key].meaning + (f" ({expected})" if expected != "text" else "")


def page() -> str:
    """docs/configuration.md."""
    lines = [INTRODUCTION.rstrip()]
    for section, rows in _by_section(flatten(presets.experiment())).items():
        lines += ["", f"## {section or 'Top'}", "", f"{SECTIONS[section].capitalize()}.", ""]
        lines += ["| key | default | may be | meaning |", "|---|---|---|---|"]
        for key, shown in rows.items():
            cells = f"`{key}`", f"`{shown}`", expected_of(key), KEYS[key].meaning
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        if section == "encoder":
            names = ", ".join(f"`{name}`" for name in encoder_variants())
            lines += ["", f"The table of encoders has {names}."]
    return "\n".join(lines) + "\n"


def _by_section(flat: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Section -> key -> value as it would be typed; in the order of the table of keys."""
    sections: dict[str, dict[str, str]] = {}
    for key in sorted(flat, key=lambda key: ORDER.index(key) if key in KEYS else len(ORDER)):
        value = flat[key]
        shown = '""' if value == "" else str(value)
        sections.setdefault(key.rpartition(".")[0], {})[key] = shown
    return sections


if __name__ == "__main__":
    sys.stdout.write(page())
