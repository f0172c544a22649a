"""tpu_pod.sh against a cloud of two workers that are folders of the test."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from bsjax.cli import launch
from tests.launch.stubs import LAUNCH, STAGE, call, ends_with, path_of, program

# Keeps what is said to it; state of the slice in a file, workers in folders.
GCLOUD = r"""
cloud=$CLOUD
echo "$*" >> "$cloud/calls"
[[ ! -e $cloud/broken ]] || { echo "ERROR: reauthentication is needed" >&2; exit 1; }
kind=$3 verb=$4
for each in "$@"; do
  case $each in --worker=*) worker=${each#*=} ;; --command=*) command=${each#*=} ;; esac
done
workers=("$cloud"/home/*)
case "$kind $verb" in
  "queued-resources create")
    mkdir -p "$cloud/home/w0" "$cloud/home/w1"; echo ACTIVE > "$cloud/state" ;;
  "queued-resources delete") rm -rf "$cloud/home" "$cloud/state" ;;
  "queued-resources list") if [[ -e $cloud/state ]]; then cat "$cloud/state"; fi ;;
  "tpu-vm describe") if [[ -e $cloud/node ]]; then cat "$cloud/node"; else echo READY; fi ;;
  "tpu-vm scp") for each in "${workers[@]}"; do cp "$5" "$each/${6#*:}"; done ;;
  "tpu-vm ssh")
    if [[ $worker != all ]]; then workers=("$cloud/home/w$worker"); fi
    status=0
    for each in "${workers[@]}"; do
      (cd "$each" && env -u BASH_ENV HOME="$each" HOSTNAME="${each##*/}" bash -c "$command") ||
        status=$?
    done
    exit "$status" ;;
  *) exit 98 ;;
esac
"""
# A worker's Python, with which uv comes; what uv installs is the test's bsjax.
PYTHON3 = r"""
echo "$*" >> "$HOME/installed"
case "$*" in
  "-m pip install --user --quiet uv=="*) ;;
  "-m uv venv"*) mkdir -p venv/bin; cp "$CLOUD/bsjax" venv/bin/bsjax; cp "$0" venv/bin/python ;;
  "-m uv pip install"*) ;;
  *) exit 98 ;;
esac
"""
# Runs until the test says with which status it ends; SIGTERM has it save.
BSJAX = r"""
if [[ $1 == launch ]]; then echo 'echo "$@"'; exit; fi
printf '%s\n' "$BSJAX_DISTRIBUTED $JAX_PLATFORMS" "$@" > "$HOME/arguments"
echo start >> "$HOME/starts"
trap 'exit 75' TERM
while [[ -d $HOME ]]; do
  if [[ -e $CLOUD/finish ]]; then exit "$(cat "$CLOUD/finish")"; fi
  sleep 0.05
done
"""
LASTING = [*STAGE[:1], "--config=rasae_imagenet", *STAGE[2:]]


def git(folder, *arguments):
    name = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def cloud(tmp_path):
    """Settings for a slice of a fake cloud, and a clone with one commit."""
    folder = tmp_path / "cloud"
    folder.mkdir()
    program(folder / "gcloud", GCLOUD)
    program(folder / "python3", PYTHON3)
    program(folder / "bsjax", BSJAX)
    clone = tmp_path / "clone"
    shutil.copytree(LAUNCH, clone / "launch", ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "configs").mkdir()
    (clone / "configs" / "rasae_imagenet.py").write_text("")
    (clone / "pyproject.toml").write_text("")
    (clone / ".gitignore").write_text("runs/\n")
    git(clone, "init", "-q")
    git(clone, "add", ".")
    git(clone, "commit", "-q", "-m", "first")
    settings = {
        "PATH": path_of(folder), "CLOUD": str(folder), "SOURCE": str(clone), "NAME": "n",
        "ZONE": "z", "PROJECT": "p", "ACCELERATOR_TYPE": "v5litepod-16", "POLL_SECONDS": "0.1",
        "RESTART_SECONDS": "0",
    }  # fmt: skip
    yield settings
    (folder / "finish").write_text("0")  # nothing of it stays


def pod(settings, *arguments):
    return call("tpu_pod.sh", *arguments, **settings)


def homes(settings):
    return [f"{settings['CLOUD']}/home/w{i}" for i in range(2)]


def lines(*path):
    with open(os.path.join(*path)) as file:
        return file.read().splitlines()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def both_started(settings, times=1):
    def condition():
        paths = [f"{home}/starts" for home in homes(settings)]
        return all(os.path.exists(path) and len(lines(path)) == times for path in paths)

    return condition


def ready(settings):
    for verb in ("create", "install"):
        done = pod(settings, verb)
        assert done.returncode == 0, done.stderr
    return done


def test_a_slice_from_its_creation_to_its_end(cloud):
    (open(f"{cloud['SOURCE']}/configs/mine.py", "w")).close()
    os.makedirs(f"{cloud['SOURCE']}/runs")
    (open(f"{cloud['SOURCE']}/runs/large", "w")).close()
    told = ready(cloud).stderr
    assert "with what is not committed: configs/mine.py\n" in told  # and it is sent
    created = next(line for line in lines(cloud["CLOUD"], "calls") if " create " in line)
    assert created == (
        "compute tpus queued-resources create n --node-id=n --accelerator-type=v5litepod-16"
        " --runtime-version=v2-alpha-tpuv5-lite --spot --zone=z --project=p"
    )
    for home in homes(cloud):
        assert os.path.exists(f"{home}/bsjax/configs/mine.py")
        assert not os.path.exists(f"{home}/bsjax/runs")
        asked = lines(home, "installed")
        assert "-m uv venv --quiet --python 3.12 venv" in asked
        assert any(line.endswith("-e ./bsjax[tpu] gcsfs") for line in asked)

    stage = [STAGE[0], "--config=configs/mine.py", *STAGE[2:]]
    done = pod(cloud, "run", "--", *stage)
    assert done.returncode == 0, done.stderr
    wait_for(both_started(cloud))
    for home in homes(cloud):
        assert lines(home, "arguments") == ["1 tpu,cpu", *stage]
    status = pod(cloud, "status").stdout
    assert status.startswith("n: READY\n") and status.count("running") == 2

    for verb in (["run", "--", *stage], ["install"]):
        again = pod(cloud, *verb)
        assert again.returncode != 0
        assert "w0: bsjax is running already; see tpu_pod.sh status" in again.stderr
    assert both_started(cloud)()

    done = pod(cloud, "stop")
    assert done.returncode == 0, done.stderr
    status = pod(cloud, "status").stdout
    assert status.count("ended 75") == 2  # and it is not started again
    assert both_started(cloud)()
    assert "does not run" in pod(cloud, "stop").stderr

    assert pod(cloud, "create").returncode == 1  # is there
    assert pod(cloud, "delete").returncode == 0
    gone = pod(cloud, "delete")
    assert gone.returncode == 1 and "there is no n in z of p; nothing was deleted" in gone.stderr


def test_a_changed_tree_is_installed_before_it_is_run(cloud):
    ready(cloud)
    with open(f"{cloud['SOURCE']}/configs/rasae_imagenet.py", "w") as file:
        file.write("x = 1\n")
    done = pod(cloud, "run", "--", *STAGE)
    assert done.returncode == 1
    assert "w1: another tree than yours is installed; run tpu_pod.sh install first" in done.stderr
    assert not os.path.exists(f"{homes(cloud)[0]}/starts")
    assert pod(cloud, "install").returncode == 0
    assert pod(cloud, "run", "--", *STAGE).returncode == 0
    wait_for(both_started(cloud))


@pytest.mark.parametrize("is_done", ["delete", "nothing"])
def test_a_spot_slice_that_is_taken_away_is_made_anew(cloud, is_done, tmp_path):
    script = ["bash", str(LAUNCH / "tpu_pod.sh"), "keep", "--", *LASTING]
    with open(tmp_path / "log", "w") as log:
        kept = subprocess.Popen(script, env=cloud | {"WHEN_DONE": is_done}, stdout=log, stderr=log)
    try:
        wait_for(both_started(cloud))
        state = f"{cloud['CLOUD']}/state"
        for home in homes(cloud):
            os.kill(int(lines(home, "bsjax.pid")[0]), signal.SIGKILL)
            os.rename(home, f"{home}-gone")  # which ends its bsjax
        with open(state, "w") as file:
            file.write("SUSPENDED\n")
        wait_for(lambda: not os.path.exists(f"{homes(cloud)[0]}-gone"))
        wait_for(both_started(cloud))
        for home in homes(cloud):
            assert lines(home, "arguments") == ["1 tpu,cpu", *LASTING]
        with open(f"{cloud['CLOUD']}/finish", "w") as file:
            file.write("0")
        assert kept.wait(timeout=60) == 0
    finally:
        kept.kill()
    told = (tmp_path / "log").read_text()
    assert "n was taken away; making it anew" in told and "ended with status 0" in told
    verbs = [
        line.split()[3] for line in lines(cloud["CLOUD"], "calls") if "queued-resources" in line
    ]
    made = [verb for verb in verbs if verb in ("create", "delete")]
    assert made == ["create", "delete", "create"] + ["delete"] * (is_done == "delete")
    assert os.path.exists(state) == (is_done == "nothing")


@pytest.mark.parametrize("status", ["1", "2"])
def test_keep_ends_with_a_mistake_and_deletes_nothing(cloud, status):
    with open(f"{cloud['CLOUD']}/finish", "w") as file:
        file.write(status)
    done = pod(cloud | {"WHEN_DONE": "delete"}, "keep", "--", *LASTING)
    assert done.returncode == int(status), done.stderr
    assert "n is there still, and costs: tpu_pod.sh delete" in done.stderr
    assert not any(" delete " in line for line in lines(cloud["CLOUD"], "calls"))
    assert both_started(cloud)()


def test_keep_gives_up_where_nothing_can_be_installed(cloud):
    program_path = f"{cloud['CLOUD']}/python3"
    with open(program_path, "w") as file:
        file.write("#!/bin/bash\nexit 1\n")
    done = pod(cloud, "keep", "--", *LASTING)
    assert done.returncode == 1
    assert not any(" delete " in line for line in lines(cloud["CLOUD"], "calls"))


@pytest.mark.parametrize("verb", ["keep", "resume", "delete", "create"])
def test_what_cannot_be_looked_at_is_not_deleted(cloud, verb):
    """No answer is no proof that the slice is gone."""
    ready(cloud)
    with open(f"{cloud['CLOUD']}/broken", "w"):
        pass
    arguments = ["--", *LASTING] if verb in ("keep", "resume") else []
    done = pod(cloud, verb, *arguments)
    assert done.returncode == 1
    assert "cannot tell the state of n: ERROR: reauthentication is needed" in done.stderr
    assert lines(cloud["CLOUD"], "calls")[-1].split()[3] == "list"


def test_resume_waits_for_what_changes_and_leaves_what_runs(cloud):
    ready(cloud)
    assert pod(cloud, "run", "--", *LASTING).returncode == 0
    wait_for(both_started(cloud))
    done = pod(cloud, "resume", "--", *LASTING)
    assert done.returncode == 0, done.stderr
    assert both_started(cloud)()
    calls = lines(cloud["CLOUD"], "calls")
    assert sum(" create " in line for line in calls) == 1
    assert not any(" delete " in line for line in calls)


@pytest.mark.parametrize(
    ("arguments", "changed", "message"),
    [
        (["delete"], {"NAME": ""}, "expected a value in NAME, got none"),
        (["delete"], {"ZONE": ""}, "expected a value in ZONE, got none"),
        (["delete"], {"PROJECT": ""}, "expected a value in PROJECT, got none"),
        (["delete"], {"NAME": "n.*"}, "NAME=n.*: expected small letters"),
        (["--dryrun", "delete"], {}, "--dryrun is unknown"),
        (["delete", "--force"], {}, "--force is unknown"),
        (["run", "delete"], {}, "expected one verb, got run and delete"),
        (["fly"], {}, 'got "fly"'),
        ([], {}, 'got ""'),
        (["create"], {"ACCELERATOR_TYPE": ""}, "expected a value in ACCELERATOR_TYPE"),
        (["create"], {"ACCELERATOR_TYPE": "v9-8"}, "expected a value in RUNTIME_VERSION"),
        (["create"], {"SPOT": "yes"}, "SPOT=yes: expected 0 or 1"),
        (["install"], {"SOURCE": "/nowhere"}, "expected a clone of bsjax"),
        (["install"], {"SOURCE": "/nowhere/a.whl"}, "there is no such wheel"),
        (["install"], {"PYTHON_VERSION": "3.10"}, "PYTHON_VERSION=3.10"),
        (["follow"], {"WORKER": "x"}, "WORKER=x"),
        (["--dry-run", "run"], {}, "expected a stage behind --, got none"),
        (["run", "--", "--config=sd15"], {}, "expected a stage behind --, got --config=sd15"),
        (["run", "--", "measure", "--config=mine.py"], {}, "expected a path within"),
        (["run", "--", "measure", "--config=/x/mine.py"], {}, "expected a path within"),
        (["run", "--", "measure", "--config=mine.py"], {"SOURCE": "git+https://x"},
         "expected a config that comes with bsjax"),
        (["keep"], {}, "expected a stage behind --, got none"),
        (["keep", "--", "train_sae", "--config=sd15"], {}, "expected --workdir=gs://BUCKET"),
        (["keep", "--", "train_sae", "--workdir=runs/x"], {}, "got runs/x"),
        (["resume", "--", "train_sae", "--workdir=gs://"], {}, "got gs://"),
        (["keep", "--", *LASTING], {"WHEN_DONE": "x"}, "WHEN_DONE=x"),
        (["keep", "--", *LASTING], {"ACCELERATOR_TYPE": ""}, "expected a value in ACCELERATOR"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_asked_for(cloud, arguments, changed, message):
    done = pod(cloud | changed, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not os.path.exists(f"{cloud['CLOUD']}/calls")


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("v4-16", "tpu-ubuntu2204-base"),
        ("v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
    ],
)
def test_each_kind_gets_its_version_of_the_runtime(cloud, kind, version):
    stays = cloud | {"ACCELERATOR_TYPE": kind, "SPOT": "0", "SERVICE_ACCOUNT": "a@p"}
    done = pod(stays, "--dry-run", "create")
    assert f"--runtime-version={version} --service-account=a@p" in done.stdout
    assert "--spot" not in done.stdout


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("create", ["queued-resources create n --node-id=n", "--spot", "--zone=z", "--project=p"]),
        ("install", ["tpu-vm scp", "--worker=all", "uv==", "-e ./bsjax[tpu]", "--zone=z"]),
        (
            "run",
            ["tpu-vm ssh n --worker=all", "idle", "BSJAX_DISTRIBUTED=1", "train_sae", "gs://b"],
        ),
        ("keep", ["queued-resources delete n", "queued-resources create n", "scp", "train_sae"]),
        ("resume", ["queued-resources delete n", "queued-resources create n", "scp", "train_sae"]),
        ("follow", ["tpu-vm ssh n --worker=0", "bsjax.log"]),
        ("status", ["queued-resources describe n", "tpu-vm ssh n --worker=all", "progress"]),
        ("stop", ["tpu-vm ssh n --worker=all", "stop"]),
        ("delete", ["queued-resources delete n --force --quiet --zone=z --project=p"]),
    ],
)
def test_dry_run_prints_and_does_nothing(cloud, verb, expected):
    done = pod(cloud, "--dry-run", verb, "--", *STAGE)
    assert done.returncode == 0, done.stderr
    place = 0
    for text in expected:
        found = done.stdout.find(text, place)
        assert found >= 0, (text, done.stdout)
        place = found
    assert not os.path.exists(f"{cloud['CLOUD']}/calls")


@pytest.mark.parametrize(("statuses", "starts"), [("75 75 0", 3), ("1 0", 1), ("2 0", 1)])
def test_a_worker_starts_again_what_stopped_early(tmp_path, statuses, starts, cloud):
    home = tmp_path / "home"
    (home / "venv" / "bin").mkdir(parents=True)
    (home / "bsjax").mkdir()
    (home / "bsjax" / "launch").symlink_to(LAUNCH)
    program(home / "venv" / "bin" / "bsjax", ends_with(tmp_path, statuses))
    command = ["bash", "launch/tpu_worker.sh", "run", "", "../venv/bin/bsjax", *STAGE]
    done = subprocess.run(command, cwd=home / "bsjax", env=cloud | {"HOSTNAME": "w"}, timeout=60)
    last = statuses.split()[starts - 1]
    assert str(done.returncode) == last
    assert (tmp_path / "n").read_text().strip() == str(starts)
    assert (home / "bsjax.status").read_text() == f"{last}\n"


def test_without_a_clone_the_workers_get_what_pip_can_install(cloud, tmp_path):
    alone = tmp_path / "tpu_pod.sh"
    alone.write_text(launch.text("tpu_pod"))
    wheel = tmp_path / "bsjax-1-py3-none-any.whl"
    wheel.write_text("a wheel")
    for source, wanted in (
        ("git+https://x/y", "bsjax[tpu] @ git+https://x/y gcsfs"),
        (str(wheel), f"bsjax[tpu] @ file://{homes(cloud)[0]}/{wheel.name} gcsfs"),
    ):
        for verb in ("create", "install"):
            done = call(alone, verb, **(cloud | {"SOURCE": source}))
            assert done.returncode == 0, done.stderr
        assert lines(homes(cloud)[0], "installed")[-1].endswith(wanted)
        # The worker's own script comes with what was installed.
        assert lines(homes(cloud)[0], "bsjax", "launch", "tpu_worker.sh") == ['echo "$@"']
        assert call(alone, "delete", **cloud).returncode == 0
