"""run: every stage of the map in order; what is finished is not repeated."""

import sys

import ml_collections

from bsjax import pipeline
from bsjax.core.errors import UserError
from bsjax.core.logs import step
from bsjax.core.paths import AnyPath
from bsjax.experiment import preflight
from bsjax.experiment.inputs import generated_name
from bsjax.results.comparisons import read_concepts
from bsjax.stats import verdicts

SHOWN = 5


def run(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
    """Runs the pipeline and prints where the report lies and what stands out."""
    if config.generator.name == "none" and not config.generated.path:
        raise UserError(
            "generated.path is empty; set --config.generated.path to a folder of images, or use a"
            " config with a generator (--config=sd15)"
        )
    with step("looking at paths, pairs, captions, weights and room on disk"):
        preflight.check_run(config, workdir)
    for stage in pipeline.STAGES:
        with step(f"stage {stage.name}"):
            stage.load()(config, workdir)
    sys.stdout.write(summarise(workdir, generated_name(config)))


def summarise(workdir: AnyPath, name: str) -> str:
    """The strongest divergences and the path of the report, as text."""
    folder = workdir / "comparisons" / name
    table, manifest = read_concepts(folder)
    rows = table.to_pylist()
    settings, counts = manifest["config"], manifest["counts"]
    lines = ["", *(f"! {note}" for note in manifest["notes"])]
    lines.append(
        f"{counts['pairs']} pairs; delta = sigmoid({settings['compare.form']} /"
        f" {settings['compare.temperature']}); {counts['suppressed']} concepts suppressed,"
        f" {counts['exaggerated']} exaggerated, {counts['not_enough_data']} of {len(rows)} with not"
        " enough data"
    )
    for title, verdict, sign in (
        ("most suppressed", verdicts.SUPPRESSED, 1),
        ("most exaggerated", verdicts.EXAGGERATED, -1),
    ):
        lines.append(f"{title}:")
        judged = [row for row in rows if row["verdict"] != verdicts.NOT_ENOUGH_DATA]
        # Those with the verdict first; others follow only where there are fewer than five.
        judged.sort(key=lambda row: (row["verdict"] != verdict, sign * row["delta"]))
        for row in judged[:SHOWN]:
            lines.append(
                f"  concept {row['concept']:>5}  delta {row['delta']:.3f}"
                f" [{row['delta_low']:.3f}, {row['delta_high']:.3f}]  {row['verdict']:<13}"
                f"  {row['words']}"
            )
    lines.append(f"report: {workdir / 'report' / 'index.html'}")
    return "\n".join(lines) + "\n"
