"""The script for a shell completes stages, flags, names of configs, keys and their values."""

import shutil
import subprocess

import pytest

from bsjax.cli import completion, configs

ASK = """
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
compopt() {{ :; }}
_bsjax
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(*words, folder="."):
    """What bash offers behind these words, the last of which is not whole."""
    quoted = " ".join(f"'{word}'" for word in words)
    program = completion.script("bash") + ASK.format(words=quoted)
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0 and done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bsjax", "me"], ["measure"]),
        (["bsjax", "--v"], ["--version"]),
        (["bsjax", "configs", "sd2"], ["sd21"]),
        (["bsjax", "help", "expl"], ["explore"]),
        (["bsjax", "completion", ""], ["bash", "zsh"]),
        (["bsjax", "explore", "--po"], ["--port="]),
        (["bsjax", "run", "--po"], []),
        (["bsjax", "run", "--over"], ["--overwrite"]),
        (["bsjax", "compare", "--config.compare.f"],
         ["--config.compare.fdr=", "--config.compare.form="]),
        (["bsjax", "report", "--config.compare.f"], []),
        (["bsjax", "run", "--config.real.follow"], ["--config.real.follow_links"]),
        # As bash splits them, and as zsh does not.
        (["bsjax", "run", "--config", "=", "sd15"], ["sd15", "sd15_dpo"]),
        (["bsjax", "run", "--config=sc"], ["scenes"]),
        (["bsjax", "run", "--config", "="], configs.names()),
        (["bsjax", "run", "--config.compare.form", "=", "d"], ["difference"]),
    ],
)  # fmt: skip
def test_words(words, expected, tmp_path):
    assert completed(*words, folder=tmp_path) == expected


def test_files(tmp_path):
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "mine.txt").write_text("")
    assert completed("bsjax", "run", "--config", "=", "mi", folder=tmp_path) == ["mine.py"]
    found = completed("bsjax", "run", "--workdir", "=", "mi", folder=tmp_path)
    assert sorted(found) == ["mine.py", "mine.txt"]


def test_zsh_takes_the_script():
    assert completion.script("zsh").endswith(completion.script("bash"))
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    program = f"{completion.script('zsh')}\nprint -r -- $_comps[bsjax]"
    done = subprocess.run(["zsh", "-fc", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "_bash_complete -F _bsjax")
