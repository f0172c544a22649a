"""How mistakes are told: errors from below name flags of the command, here they name arguments."""

import contextlib
import re
from collections.abc import Iterator, Mapping

from bsjax.core.errors import UserError

FLAG = re.compile(r"--config\.(?:[\w{},]+\.)*\w+(?:=all)?")
KEY = re.compile(r"\b(?:encoder|sae|generator|train)\.[a-z_]+(?==)")
# Flags that are no keys of a config, and keys whose argument is called otherwise.
USUAL = {
    "--overwrite": "overwrite=True",
    "--workdir": "workdir",
    "--limit": "limit",
    "--config.overwrite": "overwrite=True",
    "path": "images",
    "captions=all": "all_captions=True",
}


@contextlib.contextmanager
def naming_arguments(names: Mapping[str, str] | None = None) -> Iterator[None]:
    """Within the block, errors of the user name arguments instead of flags.

    Args:
      names: key of a config (`sae.weights`), its last part, or an argument of a function below ->
        argument. A key that is not named is called by its last part.
    """
    try:
        yield
    except UserError as error:
        told = error.named(_arguments(str(error), {**USUAL, **(names or {})}))
        raise told.with_traceback(error.__traceback__) from error.__cause__


def in_arguments(text: str, names: Mapping[str, str] | None = None) -> str:
    """A text with arguments instead of flags."""
    return str(UserError(text).named(_arguments(text, {**USUAL, **(names or {})})))


def _arguments(text: str, names: Mapping[str, str]) -> dict[str, str]:
    """Each flag in a text, and each key with its value -> the argument."""
    found = {flag: name for flag, name in names.items() if flag.startswith("--")}
    for flag in set(FLAG.findall(text)) - set(found):
        key = flag.removeprefix("--config.")
        last = key.rpartition(".")[2]
        found[flag] = names.get(key) or names.get(last) or last
    for key in KEY.findall(text):
        found[f"{key}="] = f"{names.get(key) or key.partition('.')[2]}="
    return found | {name: new for name, new in names.items() if not name.startswith("--")}
