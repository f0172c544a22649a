"""Help: what there is to type, from the map of stages and the table of flags."""

from collections.abc import Iterable

from bsjax import pipeline
from bsjax.cli.arguments import NEEDED, TYPED, USAGE, Flag, of_stage
from bsjax.core import errors
from bsjax.core.ranges import SECTIONS

# Words that are no stages -> how they are typed, what they do.
COMMANDS = {
    "configs": ("configs [NAME|FILE[:ARG]]", "experiments that come with bsjax; the keys of one"),
    "pipeline": ("pipeline", "the map: what each stage reads and writes"),
    "launch": ("launch [NAME]", "scripts that start bsjax on TPUs, GPUs and clusters; one of them"),
    "completion": ("completion bash|zsh", "script that completes commands in a shell"),
    "help": ("help [STAGE]", "this text, or that of a stage; as --help and -h"),
}
EXAMPLES = f"""examples:
  bsjax run --config=scenes --workdir=runs/demo
  bsjax run --config=sd15 --config.real.path=REAL --workdir=runs/sd15 \\
      --config.sae.weights=matybohacek/RA-SAE-DINOv2-32k
  bsjax report --workdir=runs/sd15

exit status: {errors.DONE} done, {errors.MISTAKE} a mistake, {errors.WRONG_USAGE} wrong usage,
{errors.GATE_FAILED} a gate that failed, {errors.STOPPED} stopped early (the same command goes on),
{errors.INTERRUPTED} interrupted"""


def overview() -> str:
    """What `bsjax --help` prints."""
    width = max(map(len, pipeline.BY_NAME))
    lines = [
        "Which concepts does a text-to-image model draw too rarely, which far too often?",
        "",
        USAGE,
        "       bsjax STAGE --help",
        "",
        "stages:",
        *(f"  {stage.name:<{width}}  {stage.does}" for stage in pipeline.BY_NAME.values()),
        "",
        "without a stage:",
        *_columns([*COMMANDS.values(), ("--version", "version of bsjax")]),
        "",
        "flags of most stages:",
        *_columns(_row(flag) for flag in of_stage("run")),
        "",
        EXAMPLES,
    ]
    return "\n".join(lines) + "\n"


def of(name: str) -> str:
    """What `bsjax NAME --help` prints; NAME is a stage or a command."""
    if name in COMMANDS:
        typed, does = COMMANDS[name]
        return f"usage: bsjax {typed}\n\n{does}\n"
    stage = pipeline.BY_NAME[name]
    usage = f"usage: bsjax {name}"
    if stage.sections:
        given = "--config=NAME|FILE[:ARG]"
        usage += f" [{given}]" if stage.reads_stored else f" {given}"
    usage += "".join(f" {TYPED[flag]}" for flag in NEEDED.get(name, ()))
    usage += " [--workdir=DIR]" if name == "plan" else " --workdir=DIR"
    usage += " [--config.KEY=VALUE ...]" if stage.sections else " [flags]"
    lines = [f"{name}: {stage.does}", "", usage, "", f"reads   {stage.reads}"]
    lines += [f"writes  {stage.writes}", "", "flags:", *_columns(map(_row, of_stage(name)))]
    if stage.sections:
        lines += [
            "",
            "sections of the config that it reads (keys: `bsjax configs NAME`):",
        ]
        lines += _columns((section, SECTIONS[section]) for section in stage.sections)
    if stage.reads_stored:
        lines += ["", "Without --config the workdir's manifests tell it."]
    return "\n".join(lines) + "\n"


def _row(flag: Flag) -> tuple[str, str]:
    is_switch = flag.default is False
    typed = f"--{flag.name}" if is_switch else f"--{flag.name}={flag.name.upper()}"
    if flag.name == "config":
        typed = "--config=NAME|FILE[:ARG]"
    return typed, flag.text


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = max(len(left) for left, _ in rows)
    return [f"  {left:<{width}}  {right}" for left, right in rows]
