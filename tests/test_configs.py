"""Options behind the colon of the generators' configs."""

import pathlib
import runpy

import pytest

from bsjax import presets
from bsjax.core.config import flatten, validate
from bsjax.core.errors import UserError
from bsjax.pipeline import RUN, STAGES

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
NATIVE = {"sd15": 512, "sd15_dpo": 512, "sd21": 768, "pixart": 1024, "kandinsky21": 512}


def get(name, arg=""):
    return flatten(runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](arg))


@pytest.mark.parametrize(("name", "pixels"), NATIVE.items())
def test_the_papers_size(name, pixels):
    size = ("generator.height", "generator.width")
    plain, paper, tiny = get(name), get(name, "paper"), get(name, "tiny")
    assert [plain[key] for key in size] == [pixels, pixels]
    assert paper == plain | dict.fromkeys(size, 512)
    assert [tiny[key] for key in size] == [64, 64]
    assert get(name, "paper,tiny") == get(name, "tiny,paper") == tiny
    assert get(name, "paper=false") == plain
    with pytest.raises(UserError, match="'papers' is unknown"):
        get(name, "papers")


@pytest.mark.parametrize("name", NATIVE)
def test_what_a_docstring_says_of_the_paper(name):
    text = " ".join((CONFIGS / f"{name}.py").read_text().split('"""')[1].split())
    size = NATIVE[name]
    assert f":paper 512 x 512{', as in the paper' if size != 512 else ''}" in text
    if name != "sd15_dpo":  # which is as sd15
        assert f"{size} x {size}" in text
        assert ("defaults, as in the paper" in text) == (size == 512)


def test_the_style_of_figures_is_light_or_dark():
    config = presets.experiment()
    assert config.report.style == "light"
    for stage in ("run", "report"):
        sections = next(each for each in (*STAGES, RUN) if each.name == stage).sections
        config.report.style = "dark"
        validate(config, needs_images=False, sections=sections)
        config.report.style = "both"
        with pytest.raises(
            UserError, match=r"report\.style=both: expected one of light, dark; set --config"
        ):
            validate(config, needs_images=False, sections=sections)
