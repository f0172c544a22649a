"""The command line: the map, and one line for every mistake."""

import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
import types
import warnings

import pytest
from absl import flags

from bsjax import __version__, main, pipeline, presets
from bsjax.cli import arguments as flags_of_stages
from bsjax.core import ending, errors

REPO = pathlib.Path(__file__).resolve().parents[1]


def bsjax(*arguments, **environment):
    command = [sys.executable, "-m", "bsjax.main", *arguments]
    environment = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, cwd=REPO, env=environment)


def assert_one_line(run, status, expected):
    assert run.returncode == status
    assert expected in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.count("\n") == 1


def test_the_map_names_every_stage_and_each_can_be_loaded():
    printed = bsjax("pipeline")
    assert printed.returncode == 0
    for stage in pipeline.STAGES:
        assert stage.name in printed.stdout
        assert callable(stage.load())


def told(monkeypatch, *arguments, stage="run"):
    """What parsing flags anew refuses a command line with."""
    values = flags.FlagValues()
    main.define_flags(values)
    # ml_collections keeps the module of the last config file, and reads the arguments itself.
    sys.modules.pop("config_config", None)
    monkeypatch.setattr(sys, "argv", ["bsjax", *arguments])
    with warnings.catch_warnings(), pytest.raises(errors.UserError) as refused:
        # ml_collections loads config files in a way that Python deprecates.
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        main.parse_flags(["bsjax", *arguments], stage, values)
    line = str(refused.value)
    assert "\\" not in line and "Traceback" not in line and line.count("'") % 2 == 0, line
    return refused.value, line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("",), "stage '' is unknown"),
        (("paint",), "stage 'paint' is unknown; expected"),
        (("trainsae",), "did you mean train_sae?"),
        (("mesure",), "did you mean measure?"),
        (("config",), "did you mean configs?"),
        (("help", "mesure"), "did you mean measure?"),
        (("pipeline", "x"), "unexpected 'x'; usage: bsjax pipeline"),
        (("configs", "a", "b"), "unexpected 'b'; usage: bsjax configs [NAME|FILE[:ARG]]"),
        (("configs", "sd51"), "did you mean sd15 or sd21?"),
        (("completion",), "expected bash or zsh"),
        (("completion", "fish"), "expected bash or zsh"),
    ],
)
def test_an_unknown_stage_is_wrong_usage(arguments, expected):
    with pytest.raises(errors.UsageError, match=re.escape(expected)):
        main.main(["bsjax", *arguments])


def test_libraries_are_quieted_before_anything_imports_them(monkeypatch):
    """They read their settings once; checking a config imports the encoders."""
    order = []

    def validate(*_, **__):
        order.append("validate")
        raise errors.UserError("enough")

    monkeypatch.setattr("bsjax.core.logs.quiet_libraries", lambda: order.append("quiet"))
    for name in ("parse_flags", "apply_short_flags"):
        monkeypatch.setattr(main, name, lambda *_: None)
    given = types.SimpleNamespace(overwrite=False, quiet=False, verbose=False)
    monkeypatch.setattr(main, "FLAGS", given)
    monkeypatch.setattr(main, "experiments", lambda *_: [presets.experiment()])
    monkeypatch.setattr(main, "validate", validate)
    with pytest.raises(errors.UserError, match="enough"):
        main.main(["bsjax", "measure"])
    assert order == ["quiet", "validate"]


DEMO = "--config=configs/folders.py:demo"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--config is missing; usage:"),
        (("--config=configs/folders.py",), "--workdir is missing; usage:"),
        (("--config=configs/folders.py:huge", "--workdir=x"), "config option 'huge' is unknown"),
        (("--config=configs/none.py", "--workdir=x"), "none.py: no such file"),
        (("--config=configs/folder.py", "--workdir=x"), "did you mean configs/folders.py?"),
        ((DEMO, "x", "--workdir=x"), "unexpected 'x'"),
        (("--config=folder", "--workdir=x"), "did you mean folders?"),
        (
            ("--config=zzz", "--workdir=x"),
            "no config of that name comes with bsjax; `bsjax",
        ),
        (("--config=", "--workdir=x"), "--config=: no config of that name"),
        (("--config=folders:huge", "--workdir=x"), "config option 'huge' is unknown"),
        ((DEMO, "--config=sd15", "--workdir=x"), "--config is given twice"),
        (("--config.seed=1", "--workdir=x"), "--config is missing; usage:"),
        ((DEMO, "--workdir"), "--workdir has no value; set --workdir=VALUE"),
        ((DEMO, "--limit", "--workdir=x"), "--limit has no value"),
        ((DEMO, "--port=99"), "--port belongs to explore, not to run; leave it out"),
        ((DEMO, "--topology=v5e:2x4"), "--topology belongs to plan, not to run"),
        ((DEMO, "--hosts=x"), "--hosts: there is no such flag"),
        ((DEMO, "--flagfile=none.txt"), "the file of flags cannot be read"),
        ((DEMO, "--wrong=1"), "--wrong: there is no such flag"),
        ((DEMO, "--workdirs=1"), "--workdirs: there is no such flag; did you mean --workdir?"),
        ((DEMO, "--generator.steps=1"), "did you mean --config.generator.steps?"),
        ((DEMO, "--steps=1"), "did you mean --config.generator.steps or --config.train.steps?"),
        (
            (DEMO, "--config.generator.step=3"),
            "--config.generator.step: there is no such key; did you mean --config.generator.steps?",
        ),
        ((DEMO, "--config.real.pat=x"), "did you mean --config.real.path?"),
        ((DEMO, "--config.sae.treshold=1"), "did you mean --config.sae.threshold?"),
        ((DEMO, "--config.zzz.yyy=1"), "--config.zzz.yyy: there is no such key; all stand in"),
        ((DEMO, "--config.real=x"), "--config.real is a section; expected one of its keys: --con"),
        (
            (DEMO, "--config.real.limit=x"),
            "--config.real.limit=x: expected a whole number from 1 on, or -1",
        ),
        ((DEMO, "--config.generator.steps=2.5"), "=2.5: expected a whole number from 1 on"),
        ((DEMO, "--config.sae.threshold=x"), "=x: expected a number from 0 on, or None"),
        ((DEMO, "--config.overwrite=maybe"), "=maybe: expected True or False"),
        (
            (DEMO, "--config.compare.suppressed=0.25"),
            "--config.compare.suppressed: there is no such key any more; use compare.margin, the",
        ),
        ((DEMO, "--port=65536"), "--port=65536: expected an integer in the range [0, 65535]"),
        ((DEMO, "--limit=x"), "--limit=x: expected an integer"),
    ],
)
def test_wrong_usage_is_told_in_one_line(arguments, expected, monkeypatch):
    monkeypatch.chdir(REPO)
    error, line = told(monkeypatch, *arguments)
    assert isinstance(error, errors.UsageError)
    assert expected in line


@pytest.mark.parametrize(
    ("stage", "argument", "expected"),
    [
        ("ingest", "--seed=-1", "--seed=-1: expected a non-negative integer"),
        ("ingest", "--timeout=nan", "--timeout=nan: expected a finite number"),
        ("ingest", "--max_megabytes=inf", "--max_megabytes=inf: expected a finite number"),
        ("power", "--fold=nan", "--fold=nan: expected a finite number"),
    ],
)
def test_numbers_that_are_none_are_told_in_one_line(stage, argument, expected, monkeypatch):
    needed = ["--source=x"] if stage == "ingest" else []
    error, line = told(monkeypatch, *needed, "--workdir=x", argument, stage=stage)
    assert isinstance(error, errors.UsageError) and expected in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "stress asks for one thing; set --finding=N or --concept=K"),
        (("--finding=1", "--concept=2"), "stress asks for one thing"),
        (("--finding=x",), "--finding=x: expected an integer"),
        (("--finding",), "--finding has no value"),
        (("--finding=1", "--fold=2"), "--fold belongs to power, not to stress"),
    ],
)
def test_what_a_stress_test_is_of(arguments, expected, monkeypatch):
    monkeypatch.chdir(REPO)
    error, line = told(monkeypatch, DEMO, "--workdir=x", *arguments, stage="stress")
    assert isinstance(error, errors.UsageError)
    assert expected in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def get_config(arg=''):\n  x = (\n", "line 2: SyntaxError: '(' was never closed"),
        ("\nimport absent_thing\n", "line 2: ModuleNotFoundError: No module named"),
        ("def get_config(arg=''):\n  return later\n", "line 2: NameError: name 'later' is not"),
        ("def get_config(arg=''):\n\n  return int('x')\n", "line 3: ValueError: invalid literal"),
        ("def get_config(arg=''):\n  open('/absent/x')\n", "line 2: FileNotFoundError"),
        ("x = 1\n", "defines no get_config"),
        ("def get_config(arg=''):\n  return 1\n", "get_config gives int, expected"),
        (
            "import ml_collections\ndef get_config(arg=''):\n"
            "  return ml_collections.ConfigDict({'seed': 1})\n",
            "the config lacks compare.aligned, compare.clusters, compare.confirm and",
        ),
    ],
)
def test_a_config_file_that_goes_wrong_is_named_with_its_line(
    text, expected, tmp_path, monkeypatch
):
    path = tmp_path / "mine.py"
    path.write_text(text)
    error, line = told(monkeypatch, f"--config={path}", "--workdir=x")
    assert not isinstance(error, errors.UsageError)  # exit status 1, not 2
    assert line.startswith(str(path)) and expected in line


@pytest.mark.parametrize(
    "line",
    [
        "cfg.compare.suppressed = 0.25",
        "cfg.compare.min_images = min(cfg.compare.min_images, 3)",
        "cfg.compare['bootstrap'] += 1",
        "cfg.lock(); cfg.compare.exaggerated = 0.75",
    ],
)
def test_a_config_file_of_before_says_what_to_use(line, tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(
        f"from bsjax import presets\ndef get_config(arg=''):\n  cfg = presets.experiment()\n"
        f"  {line}\n  return cfg\n"
    )
    error, told_line = told(monkeypatch, f"--config={path}", "--workdir=x")
    assert isinstance(error, errors.UserError) and "\n" not in told_line
    key = re.search(r"suppressed|min_images|bootstrap|exaggerated", line)[0]
    assert f"compare.{key}" in told_line and "there is no such key any more; use" in told_line


def test_a_flag_is_suggested_to_its_stages_alone(monkeypatch):
    monkeypatch.chdir(REPO)
    assert "did you mean --port?" in told(monkeypatch, "--prot=1", stage="explore")[1]
    assert "did you mean" not in told(monkeypatch, DEMO, "--prot=1", stage="run")[1]
    _, line = told(monkeypatch, "--config=scenes", "--workdir=x", stage="explore")
    assert line.startswith("--config belongs to generate, ") and "not to explore" in line
    assert "--quiet belongs" in told(monkeypatch, "--quiet", "--workdir=x", stage="explore")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config=folders:tiny", "--workdir=x", "--config.train.steps=7", "--config.overwrite"),
        ("--config.train.steps=7", "--config.overwrite", "--workdir=x", "--config=folders:tiny"),
        ("--config.train.steps", "7", "--workdir", "x", "--config", "folders:tiny",
         "--config.overwrite"),
        ("-config.train.steps=7", "-config.overwrite=true", "-workdir=x", "-config=folders:tiny"),
        ("--config.train.steps=9", "--config=configs/folders.py:tiny", "--config.train.steps=7",
         "--config.overwrite", "--workdir=x"),
        ("--", "--config=folders:tiny", "--workdir=x", "--config.train.steps=7",
         "--config.overwrite"),
    ],
)  # fmt: skip
def test_arguments_may_come_in_any_order(arguments, monkeypatch):
    monkeypatch.chdir(REPO)
    values = parsed(*arguments)
    config = values.config
    assert (values.workdir, config.train.steps, config.overwrite) == ("x", 7, True)
    assert config.real.limit == 40  # of :tiny


def parsed(*arguments, stage="run"):
    """Flags parsed anew."""
    values = flags.FlagValues()
    main.define_flags(values)
    sys.modules.pop("config_config", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        main.parse_flags(["bsjax", *arguments], stage, values)
    return values


def test_switches_take_no_value():
    values = parsed("--workdir=x", "-v", "--debug", stage="explore")
    assert values.verbose and values.debug
    values = parsed("--workdir=x", "--from-statistics", "--subset=a-b", stage="compare")
    assert values.from_statistics and values.subset == "a-b"
    assert not parsed("--config=scenes", "--workdir=x", "--nodebug").debug
    assert parsed("--config=scenes", "--workdir=x", "--limit", "-1").limit == -1


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",), ("-h",), ("help", "help")])
def test_help_names_every_stage_and_command(arguments, capsys):
    main.main(["bsjax", *arguments])
    printed = capsys.readouterr()
    assert printed.err == ""
    for name in (*pipeline.BY_NAME, "configs", "completion", "--version", "--workdir="):
        assert f"\n  {name} " in printed.out or f"\n  {name}" in printed.out, name
    assert max(map(len, printed.out.splitlines())) <= 100


@pytest.mark.parametrize("name", pipeline.BY_NAME)
def test_help_of_a_stage_names_its_flags_and_no_others(name, capsys):
    for arguments in ((name, "--help"), (name, "--limit=3", "-h"), ("help", name)):
        main.main(["bsjax", *arguments])
        printed = capsys.readouterr().out
        assert printed.startswith(f"{name}: {pipeline.BY_NAME[name].does}\n")
        assert ("--port=" in printed) == (name == "explore")
        assert ("--topology=" in printed) == (name == "plan")
        assert ("--config=" in printed) == (name not in flags_of_stages.WITHOUT_CONFIG)
        assert ("--repo=" in printed) == (name in ("push", "pull"))
        assert ("--source=" in printed) == (name == "ingest")
        assert ("--fold=" in printed) == (name == "power")
        assert ("[--config=" in printed) == (name in ("compare", "report"))


def test_version(capsys):
    main.main(["bsjax", "--version"])
    assert capsys.readouterr().out == f"bsjax {__version__}\n"


def test_results_go_to_stdout_and_logs_to_stderr(tmp_path):
    printed = bsjax("configs")
    assert printed.returncode == 0 and printed.stderr == "" and "sd15: " in printed.stdout
    run = bsjax("report", f"--workdir={tmp_path}", "--quiet")
    assert run.returncode == 1 and run.stdout == ""
    assert_one_line(bsjax("report", f"--workdir={tmp_path}", "--quiet", "-v"), 2, "exclude each")


def test_quiet_hides_bars():
    """On a terminal, too: tqdm reads its setting when it is imported."""
    program = (
        "from bsjax import main; main.FLAGS(['bsjax', '--quiet']); main.set_loudness();"
        " from bsjax.core import logs; print(logs.Bar('x', 3, 0, 'image').disable)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPO)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_the_process_ends_with_one_line_and_the_status():
    assert_one_line(bsjax("run", "--config=configs/folders.py:huge", "--workdir=x"), 2, "'huge'")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--config=configs/folders.py",), "real.path is empty"),
        (
            ("--config=configs/folders.py:tiny", "--config.encoder.crop=100"),
            "encoder.crop=100: expected a multiple of 14",
        ),
        ((DEMO, "--limit=-5"), "--limit=-5: expected a whole number from 1 on, or -1"),
    ],
)
def test_mistakes_end_in_one_line_and_1(arguments, expected, tmp_path):
    assert_one_line(bsjax("run", *arguments, f"--workdir={tmp_path}"), 1, expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_PLATFORMS", "cuda"),
        ("JAX_PLATFORMS", "nonsense"),
        ("JAX_ENABLE_X64", "1"),
        ("JAX_DISABLE_JIT", "1"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "bfloat16"),
        ("JAX_NUMPY_DTYPE_PROMOTION", "strict"),
        ("JAX_DEBUG_NANS", "1"),
        ("JAX_RANDOM_SEED_OFFSET", "1"),
        ("BSJAX_COORDINATOR", "localhost:1"),
    ],
)
def test_an_environment_that_cannot_work_ends_in_one_line(name, value, tmp_path):
    """A platform that the machine has not, settings that change numbers, hosts half described."""
    command = ("train_sae", "--config=configs/rasae_imagenet.py:tiny", f"--workdir={tmp_path}")
    run = bsjax(*command, **{name: value})
    lines = [line for line in run.stderr.splitlines() if line.startswith("bsjax:")]
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert len(lines) == 1 and name in lines[0] and run.stderr.endswith(lines[0] + "\n")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (errors.UserError("x is 3;\n set x"), 1, "bsjax: x is 3; set x\n"),
        (errors.UsageError("no stage"), 2, "bsjax: no stage\n"),
        (errors.Preempted("stopped"), 75, "bsjax: stopped; the same command goes on from here\n"),
        (KeyboardInterrupt(), 130, "bsjax: interrupted; the same command goes on from here\n"),
        (
            OSError(errno.EROFS, "Read-only file system", "/x/y"), 1,
            "bsjax: /x/y: Read-only file system: choose a --workdir on a disk that can be written"
            " (--debug shows where)\n",
        ),
    ],
)  # fmt: skip
def test_exit_statuses_are_a_contract(monkeypatch, capsys, error, status, line):
    assert ends_with(monkeypatch, error) == status
    assert capsys.readouterr().err == line


def ends_with(monkeypatch, error, *arguments):
    """Exit status of the console where a run raises an error."""

    def fail(argv):
        raise error

    monkeypatch.setattr(main, "main", fail)
    monkeypatch.setattr(main.logging, "use_absl_handler", lambda: None)
    monkeypatch.setattr(main.logging, "set_verbosity", lambda level: None)
    monkeypatch.setattr(sys, "argv", ["bsjax", "run", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.console()
    return ended.value.code


def test_a_fault_of_the_program_keeps_its_traceback_and_says_what_it_is(monkeypatch, capsys):
    assert ends_with(monkeypatch, TypeError("a is no b\nand more")) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == (
        "bsjax: this is a fault of bsjax (TypeError: a is no b); please report it with this"
        " traceback"
    )


def test_debug_shows_the_traceback_of_a_mistake_and_keeps_its_status(monkeypatch, capsys):
    assert ends_with(monkeypatch, errors.UsageError("no x"), "--debug") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-1] == "bsjax: no x"


def test_sigterm_outside_of_a_loop_stops_at_once():
    with pytest.raises(errors.Preempted, match="what is finished is kept"):
        ending.on_sigterm(signal.SIGTERM, None)
    # What survives a damaged image must not survive this.
    assert not issubclass(errors.Preempted, Exception)
