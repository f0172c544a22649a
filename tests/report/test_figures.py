"""Figures: one design, in both styles, the same bytes each time, and axes that speak in words."""

import io
import re
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from bsjax.data.images import thumbnail
from bsjax.report import figures, model_figures
from bsjax.report import style as styles
from bsjax.report.looks import SCHEMES
from bsjax.report.tables import rank, read_comparisons
from bsjax.stats import verdicts
from bsjax.stats.models import unknown
from tests.report.artifacts import finding, write_arm, write_comparison

KINDS = list(verdicts.KINDS)
FOUND = [
    finding(1, [0], verdicts.SUPPRESSED, -3.0, -np.inf, -1.0, words="crescents $x$"),
    finding(2, [1], verdicts.EXAGGERATED, 2.0, np.log(5), 3.0, words=""),
]


@pytest.fixture
def comparisons(tmp_path):
    write_arm(tmp_path, "real", 7)
    for name, kinds in (("one $", KINDS), ("two.5", KINDS[::-1])):
        write_arm(tmp_path, name, 7)
        write_comparison(tmp_path, name, kinds, findings=FOUND if name == "one $" else ())
    return read_comparisons(tmp_path, ("one $", "two.5"))


PLACES = np.random.default_rng(0).normal(size=(7, 2))


def draw_one(comparisons, folder, style="light"):
    """Every figure of the first set, and of both models."""
    one = comparisons[0]
    figures.draw_all(one, rank(one, 5), PLACES, folder, style)
    model_figures.draw_sheet(folder, one, rank(one, 5)[0], thumbnail, style)
    if style == "light":
        model_figures.draw_models(folder, comparisons, {}, style)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_figures_have_the_same_bytes_in_both_styles(comparisons, tmp_path, monkeypatch):
    first = draw_one(comparisons, tmp_path / "a")
    stems = {name.removesuffix(".svg") for name in first if name.endswith(".svg")}
    assert stems == {
        "one $_findings", "one $_ranking", "one $_map", "one $_rarity", "one $_energies",
        "one $_histogram", "one $_sheet_suppressed", "images", "models_matrix",
        "models_one $__two.5",
    }  # fmt: skip
    assert "findings" not in figures.drawn_of(comparisons[1])  # it has none
    monkeypatch.setattr(figures, "drawn_of", lambda _: ["findings", "map"])
    dark = draw_one(comparisons, tmp_path / "b", "dark")
    again = draw_one(comparisons[:1], tmp_path / "c")
    for name in again:
        if not name.startswith("images"):  # which is of both sets there
            assert again[name] == first[name], name
    assert len(dark) == 3 * 4
    for stem in stems:
        suffixes = (".png", ".svg", ".pdf", "_dark.png")
        assert {f"{stem}{suffix}" for suffix in suffixes} <= set(first)
        # Text in fonts of type 42, and no date.
        pdf = first[f"{stem}.pdf"]
        assert pdf.startswith(b"%PDF") and b"CreationDate" not in pdf
        assert b"/Subtype /Type3" not in pdf and b"/FontFile2" in pdf
        assert b"<dc:date>" not in first[f"{stem}.svg"]
    assert len(first) == 4 * len(stems)
    for told, style in ((first, "light"), (dark, "dark")):
        other = styles.OTHER[style]
        for stem in ("one $_findings", "one $_map", "one $_sheet_suppressed"):
            for name, of in ((f"{stem}.png", style), (f"{stem}_{other}.png", other)):
                corner = Image.open(io.BytesIO(told[name])).convert("RGB").getpixel((1, 1))
                assert "#{:02x}{:02x}{:02x}".format(*corner) == SCHEMES[of].paper, name
    assert first["one $_map_dark.png"] == dark["one $_map.png"]


def texts(drawing, *arguments):
    """Everything that a drawing writes."""
    with matplotlib.rc_context(styles.rc("light")):
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        drawing(axes, *arguments)
        figure.draw_without_rendering()
        ticks = [t for axis in (axes.xaxis, axes.yaxis) for t in axis.get_ticklabels("both")]
        found = [*figure.findobj(Text), *ticks]
        return [text.get_text() for text in found if text.get_text()]


def test_every_figure_says_real_and_generated_and_no_power_of_ten(comparisons):
    one, two = comparisons
    drawn = {
        "findings": texts(figures._findings, one),
        "ranking": texts(figures._ranking, one, rank(one, 5)),
        "rarity": texts(figures._rarity, one),
        "energies": texts(figures._energies, one),
        "histogram": texts(figures._histogram, one),
        "images": texts(model_figures._per_image, [one, two]),
        "scatter": texts(model_figures._scatter, one, two, unknown("too few")),
    }
    for name, found in drawn.items():
        said = " ".join(found)
        assert "real" in said, name
        assert "generated" in said or name in ("scatter", "rarity"), name
        assert "10^" not in said and "mathdefault" not in said, name
    assert {"10× less", "the same", "10× more"} <= set(drawn["ranking"])


def test_findings_are_told_in_the_order_of_the_page_with_their_folds(comparisons):
    said = texts(figures._findings, comparisons[0])
    assert said.index("(no typical word)") < said.index(r"crescents \$x\$")
    assert "Drawn at least 5× too much: 50.0\xa0% → 50.0\xa0%" in said
    assert "Drawn at least 2.7× too little: 50.0\xa0% → 50.0\xa0%" in said


def test_an_end_beyond_the_edge_is_an_arrow(comparisons):
    figure = Figure()
    axes = figure.subplots()
    figures._interval(axes, 0, (-np.inf, -1.0, -0.5), verdicts.SUPPRESSED, 10.0, "light")
    marks = [line for line in axes.lines if line.get_marker() in "<>"]
    assert [line.get_marker() for line in marks] == ["<"]
    assert float(marks[0].get_xdata()[0]) == pytest.approx(0.1)
    axes = figure.subplots()
    figures._interval(axes, 0, (0.1, 1.0, 5.0), verdicts.EXAGGERATED, 10.0, "light")
    assert [line.get_marker() for line in axes.lines if line.get_marker() in "<>"] == [">"]


@pytest.mark.parametrize(
    ("reach", "ticks"),
    [
        (2.2, ["1.5× less", "the same", "1.5× more"]),
        (5, ["4× less", "2× less", "the same", "2× more", "4× more"]),
        (9, ["8× less", "4× less", "2× less", "the same", "2× more", "4× more", "8× more"]),
        (30, ["10× less", "the same", "10× more"]),
        (100, ["100× less", "10× less", "the same", "10× more", "100× more"]),
    ],
)
def test_an_axis_of_ratios_speaks_in_words(reach, ticks):
    figure = Figure()
    axes = figure.subplots()
    styles.fold_axis(axes.xaxis, reach)
    figure.draw_without_rendering()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ticks
    assert axes.get_xlim() == pytest.approx((1 / reach, reach))


def test_an_axis_reaches_as_far_as_what_it_shows():
    log = np.log
    assert styles.fold_reach(np.array([log(4), -log(8), np.inf, np.nan])) == pytest.approx(9.2)
    assert styles.fold_reach(np.array([0.1])) == 2.2
    assert styles.fold_reach(np.array([log(1000)])) == 100
    assert styles.fold_reach(np.array([])) == 2.2


def test_names_of_points_do_not_overlap():
    figure = Figure(figsize=(4, 4), dpi=100)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    labels = [(0.5, 0.5, "first"), (0.51, 0.5, "hidden"), (0.5, 0.2, "third"), (0.99, 0.7, "edge")]
    styles.label_points(axes, labels, "light")
    assert [text.get_text() for text in axes.texts] == ["first", "third", "edge"]
    frame = axes.get_window_extent()
    for text in axes.texts:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1


def sheet_of(comparison, ranking, pairs, images):
    arms = ["real", "generated"][:: -1 if ranking.kind == verdicts.EXAGGERATED else 1]
    return model_figures._sheet(comparison, ranking, pairs, arms, images, "light")


@pytest.mark.parametrize("place", [0, 1], ids=["suppressed", "exaggerated"])
def test_a_sheet_has_heads_and_no_holes(comparisons, place):
    ranking = rank(comparisons[0], 5)[place]
    grey = Image.new("RGB", (8, 8), (9, 9, 9))
    pairs = {4: [(0, 0, 3)], 5: [(k, k, k) for k in range(4)]}
    images = {(arm, row): grey for arm in ("real", "generated") for row in range(4)}
    images["generated", 3] = None
    figure = sheet_of(comparisons[0], ranking, pairs, images)
    axes = figure.axes
    assert len(axes) == 2 * 2 * model_figures.SHEET_IMAGES
    heads = [each.get_title(loc="center") for each in axes]
    first = ["real", "generated"] if place == 0 else ["generated", "real"]
    assert heads == first * model_figures.SHEET_IMAGES + [""] * 8
    # Every place holds a picture, or the card's colour and why there is none.
    filled = [bool(each.images) for each in axes]
    gone = 1 if place == 0 else 3
    said = [" ".join(t.get_text() for t in each.texts).replace("\n", " ") for each in axes]
    assert filled[8:] == [row != 3 or arm != "generated" for row in range(4) for arm in first]
    assert said[:8].count("no other caption") == 3 and said.count("file is gone") >= 1
    if place == 0:
        assert said[gone] == "file is gone"
    card = matplotlib.colors.to_rgba(SCHEMES["light"].card)
    for each in axes:
        assert each.images or each.get_facecolor() == card
    # All places have one size, and none overlaps another.
    boxes = np.array([each.get_position().extents for each in axes])
    assert np.ptp(boxes[:, 2] - boxes[:, 0]) < 1e-9 and np.ptp(boxes[:, 3] - boxes[:, 1]) < 1e-9
    left, bottom, right, top = boxes.T
    apart = (
        (left[:, None] >= right)
        | (right[:, None] <= left)
        | (bottom[:, None] >= top)
        | (top[:, None] <= bottom)
    )
    assert (apart | np.eye(len(axes), dtype=bool)).all()
    assert boxes.min() >= 0 and boxes.max() <= 1
    labels = [text.get_text() for text in figure.texts]
    assert "concept 4" in labels and "concept 5" in labels
    log_ratio = comparisons[0].columns["log_ratio"]
    for concept in pairs:
        side = "less" if log_ratio[concept] < 0 else "more"
        assert f"{np.exp(abs(log_ratio[concept])):.2g}× {side} than real" in labels


def test_a_sheet_shows_the_images_of_its_side(comparisons, tmp_path):
    """Of a suppressed concept real images first, of an exaggerated one generated ones."""
    asked = []

    def load(path, *_):
        asked.append(path.split("/")[-2])
        return Image.new("RGB", (8, 8))

    for ranking, first in zip(rank(comparisons[0], 1), ("real", "one $"), strict=True):
        asked.clear()
        model_figures.draw_sheet(tmp_path / "out", comparisons[0], ranking, load)
        assert asked[0] == first and len(asked) == 2
    empty = rank(comparisons[0], 0)[0]
    assert model_figures.draw_sheet(tmp_path / "out", comparisons[0], empty, load) is None


def test_thousands_of_concepts_make_no_large_files(comparisons, tmp_path):
    n, rng = 32_000, np.random.default_rng(0)
    (one, _), kinds = comparisons, np.array([KINDS[-1]] * 32_000, dtype=object)
    kinds[::40], kinds[7::40] = verdicts.SUPPRESSED, verdicts.ALIGNED
    columns = {name: rng.lognormal(size=n) for name in one.columns} | {
        "verdict": kinds, "delta": rng.random(n), "words": np.array(["word"] * n)
    }  # fmt: skip
    many = one._replace(columns=columns)
    figures.draw_all(many, rank(many, 5), rng.normal(size=(n, 2)), tmp_path)
    for path in tmp_path.glob("*_*.*"):
        if path.is_file():
            assert path.stat().st_size < 700_000, path.name
    assert len(re.findall(rb"<path", (tmp_path / "one $_map.svg").read_bytes())) < 500


def test_characters_that_no_font_has_are_said_once_in_one_line(tmp_path, caplog):
    def drawing(axes, style):
        axes.set_title(styles.shortened("\N{CUNEIFORM SIGN A} crescents", 30))

    for stem in ("one", "two"):
        styles.draw(tmp_path, stem, (3, 2), drawing)
    said = [line for line in caplog.messages if "install a font" in line]
    assert len(said) == 1 and "73728" in said[0]
    with pytest.warns(UserWarning, match="another"), styles.legible():
        warnings.warn("another", stacklevel=1)
