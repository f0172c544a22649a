"""Completion in a shell: `bsjax completion bash` prints a script with every word there is.

absl's flags are no argparse, so nothing asks bsjax while one types: the script holds the words, and
is printed anew after an update.
"""

from bsjax import pipeline, presets
from bsjax.cli import configs, launch
from bsjax.cli.arguments import TABLE
from bsjax.cli.help import COMMANDS
from bsjax.core.config import encoder_variants, flatten
from bsjax.core.ranges import BOOLS, CHOICES

SHELLS = ("bash", "zsh")
BASH = """\
# Completes bsjax. In ~/.bashrc: source <(bsjax completion bash)
_bsjax() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} flag="" words
  # Shells split --flag=value at the equals sign.
  if [[ $word == "=" ]]; then flag=$before word=""
  elif [[ $before == "=" ]]; then flag=${{COMP_WORDS[COMP_CWORD-2]}}
  elif [[ $word == --*=* ]]; then flag=${{word%%=*}} word=${{word#*=}}
  fi
  case $flag in
    "") ;;
    --config)
      COMPREPLY=($(compgen -W "{configs}" -- "$word") $(compgen -f -X "!*.py" -- "$word"))
      return ;;
{choices}
    *) compopt -o filenames; COMPREPLY=($(compgen -f -- "$word")); return ;;
  esac
  if [[ $COMP_CWORD == 1 ]]; then
    COMPREPLY=($(compgen -W "{first}" -- "$word"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{stages}
    configs) words="{configs}" ;;
    launch) words="{launch}" ;;
    completion) words="{shells}" ;;
    help) words="{names}" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} == *= ]]; then compopt -o nospace; fi
}}
complete -F _bsjax bsjax
"""
ZSH = """\
# Completes bsjax. In ~/.zshrc: source <(bsjax completion zsh)
autoload -U +X compinit && compinit -u
autoload -U +X bashcompinit && bashcompinit
"""


def script(shell: str) -> str:
    """The script of a shell: stages, their flags, names of configs, keys and their values."""
    keys = [f"config.{key}" for key in flatten(presets.experiment())]
    switches = {flag.name for flag in TABLE if flag.default is False}
    switches |= {f"config.{key}" for key in BOOLS}
    choices = [
        f'    --config.{key}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word")); return ;;'
        for key, words in (CHOICES | {"encoder.variant": tuple(encoder_variants())}).items()
    ]
    stages = []
    for stage in pipeline.BY_NAME.values():
        flags = [flag.name for flag in TABLE if stage.name in flag.stages]
        sections = ("", *stage.sections) if stage.sections else ()
        flags += [key for key in keys if key.removeprefix("config.").rpartition(".")[0] in sections]
        words = [f"--{name}" if name in switches else f"--{name}=" for name in flags]
        stages.append(f'    {stage.name}) words="{" ".join([*words, "--help"])}" ;;')
    text = BASH.format(
        configs=" ".join(configs.names()),
        choices="\n".join(choices),
        first=" ".join([*pipeline.BY_NAME, *COMMANDS, "--help", "--version"]),
        stages="\n".join(stages),
        launch=" ".join(launch.names()),
        shells=" ".join(SHELLS),
        names=" ".join([*pipeline.BY_NAME, *COMMANDS]),
    )
    return text if shell == "bash" else ZSH + text
