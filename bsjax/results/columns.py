"""The columns of every table in a workdir: name, type, unit and meaning, in the order of the files.

Writers are held to them; the docs and the explorer can read them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from bsjax.stats import replication, verdicts


class Column(NamedTuple):
    """One column; `type` as pyarrow names it."""

    name: str
    type: str
    unit: str
    meaning: str


CODE = "code per image"  # codes have the scale of the SAE's LayerNorm
SHARE = "from 0 to 1"
LOG = "natural log"
FOLD = "generated / real"

MEASURED_CONCEPTS = (
    Column("concept", "int32", "", "number of the concept: its row in the SAE's dictionary"),
    Column("energy", "double", CODE, "mean over images of the sum of codes over all tokens"),
    Column("energy_sd", "double", CODE, "standard deviation of that sum over images (n - 1)"),
    Column("fires", "int64", "tokens", "(image, token) pairs with a code above zero"),
    Column("prevalence", "double", SHARE, "share of images with a code above zero"),
)
IMAGES = (
    Column("row", "int32", "", "row of the image in image_codes.npz and in top_images.npz"),
    Column("key", "string", "", "name that pairs the image with that of the other set"),
    Column("caption", "string", "", "its caption; empty where it has none"),
    Column("path", "string", "", "where the image lies; ./ is the workdir; empty: in memory alone"),
)  # then, as text, the further columns of the caption table
CLUSTER = "cluster"  # and, where images repeat one another, the key of what each repeats
TESTS = (  # of a concept's change from one arm to another
    Column("p_direction", "double", SHARE, "two-sided, sign-flip test of any change"),
    Column("q_direction", "double", SHARE, "p_direction adjusted; NaN without enough data"),
    Column("p_material", "double", SHARE, "one-sided, of a change within the margin"),
    Column("q_material", "double", SHARE, "p_material adjusted; NaN without enough data"),
    Column("q_aligned", "double", SHARE, "adjusted p of a change beyond the aligned fold"),
)
COMPARED_CONCEPTS = (
    Column("concept", "int32", "", "number of the concept: its row in the SAE's dictionary"),
    Column("energy_real", "double", CODE, "energy over the real images of all pairs"),
    Column("energy_generated", "double", CODE, "energy over the generated images of all pairs"),
    Column("difference", "double", CODE, "energy_generated - energy_real"),
    Column("relative", "double", "from -1 to 1", "difference over the sum of both; 0 for 0/0"),
    Column("delta_difference", "double", SHARE, "sigmoid(difference / T)"),
    Column("delta_relative", "double", SHARE, "sigmoid(relative / T)"),
    Column("delta", "double", SHARE, "of the form that was chosen; below 0.5 drawn less than real"),
    Column("relative_low", "double", "as relative", "95 % interval, tanh(low / 2)"),
    Column("relative_high", "double", "as relative", "95 % interval, tanh(high / 2)"),
    Column("delta_low", "double", SHARE, "95 % interval of delta, from that of log_ratio"),
    Column("delta_high", "double", SHARE, "95 % interval of delta, from that of log_ratio"),
    Column("prevalence_real", "double", SHARE, "share of the pairs' real images that show it"),
    Column("prevalence_generated", "double", SHARE, "the same of the generated images"),
    Column("fires_real", "int64", "tokens", "of all measured images; null where not known"),
    Column("fires_generated", "int64", "tokens", "of all measured images; null where not known"),
    Column("fires_pairs_real", "int64", "tokens", "of the pairs' images; null where not known"),
    Column("fires_pairs_generated", "int64", "tokens", "of the pairs'; null where not known"),
    Column("n_real", "int64", "clusters", "whose real image shows it"),
    Column("n_generated", "int64", "clusters", "whose generated image shows it"),
    Column("n_both", "int64", "clusters", "of which both images show it"),
    Column("log_ratio", "double", LOG, "of the energies generated / real; NaN: fires in neither"),
    Column("se", "double", LOG, "standard error of log_ratio"),
    Column("low", "double", LOG, "95 % interval of log_ratio; -inf: no generated image shows it"),
    Column("high", "double", LOG, "95 % interval of log_ratio; inf: no real image shows it"),
    Column("prevalence_ratio", "double", FOLD, "of images that show it"),
    Column("prevalence_low", "double", FOLD, "95 % interval of prevalence_ratio"),
    Column("prevalence_high", "double", FOLD, "95 % interval of prevalence_ratio"),
    Column("p_prevalence", "double", SHARE, "two-sided mid-p of McNemar's test of prevalence"),
    Column("amount_ratio", "double", FOLD, "of energy per token that fires, or per image"),
    Column("area_ratio", "double", FOLD, "of tokens per image that shows it; NaN: not known"),
    *TESTS,
    Column("verdict", "string", "", ", ".join(verdicts.KINDS)),
    Column("verdict_paper", "string", "", "by delta alone: below 0.1, above 0.9, or between"),
    Column("shrunk", "double", LOG, "log_ratio drawn to the common mean; for display"),
    Column("asked_n", "int64", "clusters", "whose caption asks for it; of called concepts alone"),
    Column("asked_log_ratio", "double", LOG, "log_ratio over these; NaN: not asked for"),
    Column("asked_low", "double", LOG, "95 % interval of asked_log_ratio"),
    Column("asked_high", "double", LOG, "95 % interval of asked_log_ratio"),
    Column("words", "string", "", "caption words typical of its top images, with commas"),
)
CONTROLLED = (
    Column("control_log_ratio", "double", LOG, "real -> control that moves it most to its side"),
    Column("control", "string", "", "which control that is; empty: none shows it"),
)  # behind the others, where controls were measured
CONTROL_SHIFTS = (
    Column("concept", "int32", "", "number of the concept"),
    Column("control", "string", "", "jpeg, crop or vae: the real images, changed"),
    Column("log_ratio", "double", LOG, "of the energies control / real"),
    Column("se", "double", LOG, "standard error of log_ratio"),
    Column("low", "double", LOG, "95 % interval of log_ratio"),
    Column("high", "double", LOG, "95 % interval of log_ratio"),
    Column("p_material", "double", SHARE, "of generated / control within the margin"),
    Column("p_direction", "double", SHARE, "of any change from control to generated"),
)
IDS = "list<element: int32>"
FINDINGS = (
    Column("finding", "int32", "", "1 has the most evidence"),
    Column("concepts", IDS, "", "that tell of the same change, the one with most evidence first"),
    Column("words", "string", "", "of the first of them that has any"),
    Column("verdict", "string", "", "suppressed or exaggerated"),
    Column("log_ratio", "double", LOG, "of their energies, each in units of its mean, added up"),
    Column("low", "double", LOG, "95 % interval of log_ratio"),
    Column("high", "double", LOG, "95 % interval of log_ratio"),
    Column("instead", IDS, "", "drawn instead of the first (or whose place it takes)"),
    Column("asked_n", "int64", "clusters", "whose caption asks for the first"),
    Column("asked_log_ratio", "double", LOG, "log_ratio over these; NaN: not asked for"),
    Column("asked_low", "double", LOG, "95 % interval of asked_log_ratio"),
    Column("asked_high", "double", LOG, "95 % interval of asked_log_ratio"),
)
SUBSTITUTIONS = (
    Column("concept", "int32", "", "suppressed or exaggerated"),
    Column(
        "instead", "int32", "", "drawn in its place; of an exaggerated one: whose place it takes"
    ),
    Column("n", "int64", "clusters", "in which the concept is missing (or added)"),
    Column("lift", "double", SHARE, "share of these in which the other appears, beyond all others"),
    Column("z", "double", "standard errors", "lift over its standard error"),
    Column("q", "double", SHARE, "adjusted p over all concepts"),
)
ATTRITION = (
    Column("key", "string", "", "of the caption; its row in the table, where it was ingested"),
    Column("caption", "string", "", "empty where it is not known"),
    Column("missing", "string", "", "real, generated, or both images"),
    Column("reason", "string", "", "why; empty where nobody says"),
)
DATAPOINTS = (
    Column("rank", "int32", "", "1: the pair most unusually alike; by z, else by cosine"),
    Column("key", "string", "", "of the pair"),
    Column("caption", "string", "", "of the real image"),
    Column("row_real", "int32", "", "row among the real images"),
    Column("row_generated", "int32", "", "row among the generated images"),
    Column("mean_difference", "double", CODE, "mean over concepts of generated - real, signed"),
    Column("absolute_difference", "double", CODE, "sum over concepts of |generated - real|"),
    Column("cosine", "double", "from 0 to 1", "of the images' codes; near 1 is no sign of a copy"),
    Column("patch_similarity", "double", "from -1 to 1", "cosine of patch tokens, lowest 2 %"),
    Column("place", "string", "patches", "by which it lies off there, and whether it is mirrored"),
    Column("z", "double", "sd", "how unusually alike: beyond images of other captions"),
    Column("null_mean", "double", "as cosine", "likeness with images of other captions"),
    Column("n_firing", "int64", "concepts", "that fire in both images"),
    Column("bland", "bool", "", "an image so plain that likeness means little"),
    Column("closeness", "double", SHARE, "of its concepts that both show within the aligned fold"),
)  # patch_similarity to null_mean, and bland: null where patch tokens were not kept
DUPLICATES = (
    Column("key", "string", "", "of a real image"),
    Column("other", "string", "", "of a real image that is nearly the same"),
    Column("patch_similarity", "double", "from -1 to 1", "cosine of patch tokens, lowest 2 %"),
)
MOVED_CONCEPTS = (
    Column("concept", "int32", "", "number of the concept: its row in the SAE's dictionary"),
    Column("words", "string", "", "caption words typical of its top images, with commas"),
    Column("log_ratio", "double", LOG, "of the energies of B / A; NaN: fires in neither"),
    Column("se", "double", LOG, "standard error of log_ratio"),
    Column("low", "double", LOG, "95 % interval of log_ratio; -inf: no image of B shows it"),
    Column("high", "double", LOG, "95 % interval of log_ratio; inf: no image of A shows it"),
    *TESTS,
    Column("verdict", "string", "", "of B against A, as if A's were the real images"),
    Column("moved", "string", "", "towards the real images, away, elsewhere; empty: not material"),
    Column("q_towards", "double", SHARE, "adjusted p of what towards needs; NaN: no data"),
    Column("q_away", "double", SHARE, "adjusted p of what away needs; NaN: not enough data"),
    *(
        Column(f"{name}_{arm}", kind, unit, f"{meaning} of {arm.upper()} against the real images")
        for arm in ("a", "b")
        for name, kind, unit, meaning in (
            ("log_ratio", "double", LOG, "log ratio"),
            ("low", "double", LOG, "95 % interval"),
            ("high", "double", LOG, "95 % interval"),
            ("q_material", "double", SHARE, "q_material"),
            ("verdict", "string", "", "verdict"),
        )
    ),
)  # all over the pairs that both sets have
CORRELATIONS = (
    Column("a", "string", "", "generated set"),
    Column("b", "string", "", "another one, or the same"),
    Column("r", "double", "from -1 to 1", "of their true log ratios; null where it is not known"),
    Column("low", "double", "from -1 to 1", "95 % interval of r"),
    Column("high", "double", "from -1 to 1", "95 % interval of r"),
    Column("reliability_a", "double", "to 1", "of a: split-half correlation of its log ratios"),
    Column("reliability_b", "double", "to 1", "of b"),
    Column("n_concepts", "int64", "concepts", "that are correlated"),
    Column("n_pairs", "int64", "pairs", "that both sets have"),
    Column("reason", "string", "", "why r is not known; empty where it is"),
)
RANKING = (
    Column("caption", "string", "", "of one image or of several"),
    Column("images", "int64", "images", "with that caption"),
    Column("mean_energy", "double", CODE, "of the concept, over these images"),
    Column("sd_energy", "double", CODE, "its standard deviation (n - 1)"),
    Column("share_shown", "double", SHARE, "share of these images that show the concept at all"),
)
REPLICATED = (
    Column("concept", "int32", "", "number of the concept in this workdir's SAE"),
    Column("other", "int32", "", "its counterpart in the other's; null: it has none"),
    Column("correlation", "double", "from 0 to 1", "of their codes over the real images"),
    Column("log_ratio", "double", LOG, "of the concept, as in comparisons/<set>/"),
    Column("low", "double", LOG, "95 % interval of log_ratio"),
    Column("high", "double", LOG, "95 % interval of log_ratio"),
    Column("other_log_ratio", "double", LOG, "of the counterpart"),
    Column("other_low", "double", LOG, "95 % interval of other_log_ratio"),
    Column("other_high", "double", LOG, "95 % interval of other_log_ratio"),
    Column("verdict", "string", "", "of the concept"),
    Column("other_verdict", "string", "", "of the counterpart"),
    Column("replicates", "string", "", ", ".join(replication.MEANINGS)),
    Column("words", "string", "", "of the concept"),
)  # correlation and other_*: null where there is no counterpart
STRESS_SAMPLES = (
    Column("prompt", "int32", "", "row in prompts.parquet"),
    Column("sample", "int32", "", "number of the image among those of its prompt; sets its noise"),
    Column("fires", "bool", "", "whether the concept has a code above zero in it: it passes"),
    Column("energy", "double", CODE, "sum of the concept's codes over all tokens"),
    Column("concepts", "int32", "", "concepts of the finding that have a code above zero in it"),
    Column("image", "string", "", "key of the image in images/"),
)
STRESS_PROMPTS = (
    Column("prompt", "int32", "", "number of the prompt"),
    Column("text", "string", "", "of the prompt"),
    Column("n", "int32", "images", "drawn that could be used"),
    Column("passes", "int32", "images", "in which the concept fires"),
    Column("pass_at_1", "double", SHARE, "share of the images that pass"),
    Column("pass_at_n", "double", SHARE, "that one of as many as every prompt has passes"),
    Column("real_n", "int32", "images", "real ones of this caption; 0: none is known"),
    Column("real_rate", "double", SHARE, "of these that show the concept; null: none is known"),
)
TABLES = {
    "measures/<set>/concepts.parquet": MEASURED_CONCEPTS,
    "measures/<set>/images.parquet": IMAGES,
    "measures/<set>/ranking-<concept>.csv": RANKING,
    "comparisons/<set>/concepts.parquet": COMPARED_CONCEPTS,
    "comparisons/<set>/findings.parquet": FINDINGS,
    "comparisons/<set>/substitutions.parquet": SUBSTITUTIONS,
    "comparisons/<set>/datapoints.parquet": DATAPOINTS,
    "comparisons/<set>/duplicates.parquet": DUPLICATES,
    "models/<A>/<B>/concepts.parquet": MOVED_CONCEPTS,
    "report/models.csv": CORRELATIONS,
    "replications/<set>/<other>/concepts.parquet": REPLICATED,
}
OF_CONTROLS = {  # where controls were measured
    "comparisons/<set>/concepts.parquet, with controls, at the end": CONTROLLED,
    "comparisons/<set>/controls.parquet": CONTROL_SHIFTS,
}
OF_MISSING = {  # where images are
    "comparisons/<set>/attrition.parquet": ATTRITION,
}
OF_STRESS = {
    "stress/<set>/<finding>/prompts.parquet": STRESS_PROMPTS,
    "stress/<set>/<finding>/samples.parquet": STRESS_SAMPLES,
}


def make_table(columns: Sequence[Column], values: Mapping[str, Any]) -> pa.Table:
    """A table of these columns, in their order and of their types."""
    arrays = {}
    for column in columns:
        is_list = column.type == IDS
        kind = pa.list_(pa.field("element", pa.int32())) if is_list else column.type
        arrays[column.name] = pa.array(values[column.name], kind)
    return pa.table(arrays)


def require_columns(
    table: pa.Table, columns: Sequence[Column], with_more: bool = False
) -> pa.Table:
    """The table, if it has these columns in this order; with `with_more` text columns may follow.

    Raises:
      ValueError: it has others. That is a fault of the program, not of its user.
    """
    found = [(field.name, str(field.type)) for field in table.schema]
    expected = [(column.name, column.type) for column in columns]
    more = found[len(expected) :]
    if found[: len(expected)] != expected or (more and not with_more):
        raise ValueError(f"expected the columns {expected}, got {found}")
    if any(kind != "string" for _, kind in more):
        raise ValueError(f"expected further columns of text, got {more}")
    return table


def describe_tables() -> str:
    """All tables and columns as Markdown."""
    lines = []
    for name, columns in (TABLES | OF_CONTROLS | OF_MISSING | OF_STRESS).items():
        lines += [f"`{name}`", "", "| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| {c.name} | {c.type} | {c.unit} | {c.meaning} |" for c in columns]
        lines.append("")
    return "\n".join(lines)
