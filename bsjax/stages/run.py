"""run: every stage of the map in order; what is finished is not repeated.

Several hosts draw, train and measure together; one compares and reports while the others wait.
"""

import sys

import ml_collections
from etils import epath

from bsjax import pipeline
from bsjax.core import distributed, mirror
from bsjax.core.errors import UserError
from bsjax.core.logs import step
from bsjax.core.paths import AnyPath
from bsjax.experiment import controls, preflight
from bsjax.experiment.inputs import generated_name
from bsjax.report import said
from bsjax.results.comparisons import read_concepts, read_findings
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
        controls.check_compared(config, epath.Path(workdir))
    for stage in pipeline.STAGES:
        with step(f"stage {stage.name}"):
            if stage.is_shared:
                stage.load()(config, workdir)
            elif distributed.is_writer():
                with mirror.mirrored(workdir) as place:
                    stage.load()(config, place)
            distributed.wait_for_all(stage.name)
    if distributed.is_writer():
        sys.stdout.write(summarise(workdir, generated_name(config)))


def summarise(workdir: AnyPath, name: str) -> str:
    """The strongest findings and the path of the report, as text."""
    folder = mirror.fetch(workdir / "comparisons" / name)
    table, manifest = read_concepts(folder)
    found, replaced = (each.to_pylist() for each in read_findings(folder))
    columns = {column: table[column].to_pylist() for column in table.column_names}
    told = said.tell(found, replaced, columns, manifest["config"])
    lines = ["", *(f"! {note}" for note in manifest["notes"])]
    counts = manifest["counts"]
    lines.append(f"{counts['pairs']} pairs of images. {said.headline(counts, len(told))}")
    lines += [] if told else said.nothing_called(manifest)
    for each in told[:SHOWN]:
        instead = dict.fromkeys(
            columns["words"][one.concept] or str(one.concept) for one in each.instead
        )
        kind = "drawn instead" if each.verdict == verdicts.SUPPRESSED else "in place of"
        lines += [
            f"  {each.words or '(no typical word)'}: {each.verdict}. {each.change} {each.shown}",
            f"      asked for? {each.asked}",
        ]
        lines += [f"      {kind}: {'; '.join(instead)}"] if instead else []
    if told[SHOWN:]:
        lines.append(f"  ... and {len(told) - SHOWN} more")
    lines.append(f"report: {workdir / 'report' / 'index.html'}")
    return "\n".join(lines).replace(said.NBSP, " ") + "\n"
