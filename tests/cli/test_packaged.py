"""Configs by name from anywhere, their keys with meaning, and the page that lists them."""

import contextlib
import pathlib
import re
import sys
import warnings

import pytest

from bsjax import main, presets
from bsjax.cli import arguments, configs, reference
from bsjax.core import ranges
from bsjax.core.config import flatten
from bsjax.core.errors import UsageError, UserError

REPO = pathlib.Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def loading():
    """ml_collections keeps the module of the last config, and loads in a way Python deprecates."""
    sys.modules.pop("config_config", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        yield


def test_a_name_is_found_from_anywhere_and_a_path_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configs.resolve("sd15:tiny") == f"{REPO / 'configs' / 'sd15.py'}:tiny"
    assert configs.resolve("scenes") == str(REPO / "configs" / "scenes.py")
    (tmp_path / "sd15").write_text("")  # a name is no path
    (tmp_path / "mine.py").write_text("")
    assert configs.resolve("sd15") == str(REPO / "configs" / "sd15.py")
    assert configs.resolve("mine.py:a=b:c") == "mine.py:a=b:c"
    assert configs.resolve("./mine.py") == "./mine.py"
    with pytest.raises(UsageError, match=r"^--config=mine: .*; did you mean mine.py\?"):
        configs.resolve("mine")
    with pytest.raises(UsageError, match="no such file$"):
        configs.resolve("elsewhere/sd15")
    with pytest.raises(UsageError, match=r"no such file; did you mean mine.py\?"):
        configs.resolve("mne.py")


def test_an_installed_copy_comes_first(tmp_path):
    package = tmp_path / "bsjax"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "beside.py").write_text("")
    assert configs.names(package) == ["beside"]
    (tmp_path / "bsjax" / "configs").mkdir(parents=True)
    (tmp_path / "bsjax" / "configs" / "within.py").write_text("")
    (tmp_path / "bsjax" / "configs" / "__init__.py").write_text("")
    assert configs.names(package) == ["within"]


@pytest.mark.parametrize("name", configs.names())
def test_the_listed_options_are_those_that_a_config_takes(name):
    found = configs.describe(REPO / "configs" / f"{name}.py")
    assert found.title.endswith((".", "?")) and f"\n{name}: {found.title}\n" in configs.listing()
    with loading(), pytest.raises(UserError) as refused:
        arguments.read_config(f"{name}:zzz")
    legal = re.search(r"put one of (.*) behind", str(refused.value))[1].split(", ")
    assert sorted(option.partition("=")[0] for option in found.options) == legal


def test_texts_of_options_are_whole():
    options = configs.describe(REPO / "configs" / "scenes.py").options
    assert options["limit=N"] == "as many captions"
    tiny = configs.describe(REPO / "configs" / "sd21.py").options["tiny"]
    assert tiny.startswith("40 emoji captions") and tiny.endswith(
        "About a minute on two CPU cores."
    )


def test_the_keys_of_a_config_are_printed_with_value_and_meaning(capsys, tmp_path):
    with loading():
        main.main(["bsjax", "configs", "sd21:tiny"])
    printed = capsys.readouterr().out
    assert re.search(r"\n  generator.steps = 4 +steps of the sampler \(a whole number", printed)
    assert re.search(r"\n  generator.set = sd21 +name of its images' folder\n", printed)
    assert re.search(r"\n  sae.threshold = None +.* \(a number from 0 on, or None\)\n", printed)
    for key in flatten(presets.experiment()):
        assert f"\n  {key} = " in printed
    path = tmp_path / "mine.py"
    text = "from bsjax import presets\ndef get_config(arg=''):\n  cfg = presets.experiment()\n"
    path.write_text(f"{text}  cfg.mine = 3\n  return cfg\n")
    with loading():
        main.main(["bsjax", "configs", f"--config={path}"])
    assert "\n  mine = 3\n" in capsys.readouterr().out
    path.write_text(f"{text}  return 1 / 0\n")
    with loading(), pytest.raises(UserError, match="line 4: ZeroDivisionError"):
        main.main(["bsjax", "configs", str(path)])


def test_every_key_has_its_meaning():
    for key, (allowed, meaning) in ranges.KEYS.items():
        assert 3 <= len(meaning) <= 80 and meaning == meaning.strip(), key
        assert allowed in (str, bool) or allowed, key
    assert set(ranges.SECTIONS) == set(ranges.BY_SECTION)
    flat = flatten(presets.experiment())
    for key, choices in ranges.CHOICES.items():
        assert flat[key] in choices, key


def test_the_page_of_the_docs_is_up_to_date():
    page = (REPO / "docs" / "configuration.md").read_text()
    assert page == reference.page(), "python -m bsjax.cli.reference > docs/configuration.md"
    assert "| `train.steps` | `2000` | a whole number from -1 on | -1: as many as" in page
