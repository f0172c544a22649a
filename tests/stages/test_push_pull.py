"""`bsjax push` and `bsjax pull`, against a hub on this machine."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple

import huggingface_hub
import numpy as np
import pytest
from absl.testing import flagsaver
from huggingface_hub import constants, file_download

import bsjax
from bsjax import main
from bsjax.convert.overcomplete_form import ENCODER
from bsjax.convert.rasae import save_trained
from bsjax.core import checksums
from bsjax.core.artifacts import MANIFEST, write_json, write_manifest
from tests.benchmarks.simulator import draw_world
from tests.convert.hub_store import serve

REPO = pathlib.Path(__file__).resolve().parents[2]
N, K, D = 60, 40, 8


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workdir with an SAE, a checkpoint, a comparison and a report."""
    workdir = tmp_path_factory.mktemp("made")
    world = draw_world(3, N, K)
    captions = [f"a *starred* caption {i}" for i in range(N)]
    bsjax.compare_codes(world.real, world.generated, captions).save(workdir)
    sae = workdir / "sae"
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(D, K)), np.zeros(K), np.ones(K), np.zeros(K))
    encoder = dict(zip(ENCODER, weights, strict=True))
    (sae / "checkpoints" / "7").mkdir(parents=True)
    (sae / "checkpoints" / "7" / "state").write_bytes(b"c" * 100)
    save_trained(sae / "sae.safetensors", encoder, rng.normal(size=(K, D)), 0.5, "a test")
    write_json(sae / "config.json", {"config": {}, "parents": {}, "sha256": "x"})
    config = {"train.activation": "batch_topk", "encoder.weights": "/home/me/dino"}
    write_manifest(
        sae, stage="train_sae", config=config, parents={}, counts={"r2": 0.812345678, "steps": 7}
    )
    report = workdir / "report"
    (report / "data").mkdir(parents=True)
    (report / "index.html").write_text("<p>page", encoding="utf-8")
    (report / "data" / "big.js").write_bytes(os.urandom(30_000))
    (report / "findings.csv").write_text(
        "set,finding,verdict,words,change,interval\n"
        "generated,1,suppressed,a|b [x](y),Drawn at least 5× too little.,2× to 7×\n",
        encoding="utf-8",
    )
    card = {"pairs": "60 in 60 clusters", "versions": "bsjax 0"}
    write_json(report / "generated__card.json", card)
    write_manifest(report, stage="report", config={}, parents={}, counts={})
    return workdir


@pytest.fixture
def workdir(made, tmp_path):
    return shutil.copytree(made, tmp_path / "mine")


class Said(NamedTuple):
    """How a command line ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def call(tmp_path, monkeypatch, capsys, caplog):
    """Runs bsjax with a cache of its own, against an address."""

    def run(address, *arguments, is_offline=False):
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
        monkeypatch.setattr(sys, "argv", ["bsjax", *map(str, arguments)])
        huggingface_hub.configure_http_backend()  # a session that knows what was set
        caplog.clear()
        with flagsaver.flagsaver(), caplog.at_level("INFO"):
            try:
                main.console()
                status = 0
            except SystemExit as error:
                status = error.code
        printed = capsys.readouterr()
        return Said(status, printed.out, printed.err + caplog.text)

    yield run
    monkeypatch.undo()
    huggingface_hub.configure_http_backend()  # else a later test finds an offline one


def files_of(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_what_is_pushed_is_pulled_file_by_file(workdir, call, tmp_path):
    with serve() as (address, hub):
        pushed = call(address, "push", "--repo=me/thing", f"--workdir={workdir}", "--private")
        assert pushed.returncode == 0, pushed.stderr
        assert "encoder.weights=/home/me/dino" in pushed.stderr  # told, not hidden
        assert hub.is_private == {"me/thing": True} and len(hub.commits) == 1
        there = hub.repos["me/thing"]
        assert "sae/sae.safetensors" in there and "report/data/big.js" in there
        assert not any("checkpoints" in name or "measures" in name for name in there)

        fresh = tmp_path / "fresh"
        pulled = call(address, "pull", "--repo=me/thing", f"--workdir={fresh}")
        assert pulled.returncode == 0, pulled.stderr
        mine, theirs = files_of(workdir), files_of(fresh)
        assert theirs and all(mine[name] == content for name, content in theirs.items())
        left_out = {name for name in mine if name not in theirs}
        assert left_out == {"sae/checkpoints/7/state"}
        shutil.rmtree(fresh / "report")
        again = call(address, "pull", "--repo=me/thing", f"--workdir={fresh}", "--parts=report,sae")
        assert "sae: is there already" in again.stderr
        assert files_of(fresh) == theirs

        # Without the hub: from the cache, and into the same folders.
        shutil.rmtree(fresh)
        offline = call(address, "pull", "--repo=me/thing", f"--workdir={fresh}", is_offline=True)
        assert offline.returncode == 0 and files_of(fresh) == theirs, offline.stderr


def test_a_pushed_sae_loads_by_the_name_of_its_repository(workdir, call, tmp_path):
    with serve() as (address, _):
        assert call(address, "push", "--repo=me/sae", f"--workdir={workdir}").returncode == 0
        told = subprocess.run(
            [sys.executable, "-c", "import bsjax; s = bsjax.load_sae('me/sae'); print(s.digest)"],
            env=os.environ | {"PYTHONPATH": str(REPO), "HF_HOME": str(tmp_path / "other"),
                              "HF_ENDPOINT": address, "JAX_PLATFORMS": "cpu"},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert told.stdout.strip() == bsjax.load_sae(str(workdir)).digest, told.stderr


def test_pushing_again_sends_what_changed_and_drops_what_went(workdir, call):
    with serve() as (address, hub):
        line = ("push", "--repo=me/thing", f"--workdir={workdir}")
        assert call(address, *line).returncode == 0
        uploads, there = hub.uploads, hub.repos["me/thing"]
        assert uploads >= 1
        there["notes.txt"] = b"somebody's own"
        (workdir / "report" / "data" / "big.js").unlink()
        (workdir / "report" / "index.html").write_text("<p>other", encoding="utf-8")
        write_manifest(workdir / "report", stage="report", config={}, parents={}, counts={})
        assert call(address, *line).returncode == 0
        assert hub.uploads == uploads  # large files are there already
        assert "report/data/big.js" not in there and there["notes.txt"] == b"somebody's own"
        assert there["report/index.html"] == b"<p>other"
        assert call(address, *line, "--parts=statistics").returncode == 0
        assert "report/index.html" in there  # of a part that was not pushed

        card = there["README.md"].decode()
        there["README.md"] = b"# by hand"
        told = call(address, *line)
        assert "model card of its own" in told.stderr and there["README.md"] == b"# by hand"
    assert "bsjax pull --repo=me/thing" in card


def test_the_card_tells_what_is_there(workdir, call):
    with serve() as (address, hub):
        call(address, "push", "--repo=me/thing", f"--workdir={workdir}")
        card = hub.repos["me/thing"]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: bsjax\n") and "base_model" not in card
    assert "| a\\|b \\[x\\](y) | suppressed | Drawn at least 5× too little. | 2× to 7× |" in card
    assert "| r2 | 0.812346 |" in card and 'bsjax.load_sae("me/thing")' in card
    assert "| pairs | 60 in 60 clusters |" in card and "/home/me" not in card


def test_a_dry_run_sends_nothing(workdir, call):
    with serve() as (address, hub):
        told = call(address, "push", "--repo=me/x", f"--workdir={workdir}", "--dry_run")
    assert told.returncode == 0 and not hub.repos
    assert [line.partition(":")[0] for line in told.stdout.splitlines()] == [
        "sae", "comparisons/generated", "report",
    ]  # fmt: skip


def one_line(run, *words):
    assert run.returncode in (1, 2), run.stderr
    line = [each for each in run.stderr.splitlines() if each.startswith("bsjax: ")]
    assert len(line) == 1 and "Traceback" not in run.stderr, run.stderr
    for word in words:
        assert word in line[0]


def test_mistakes_are_one_line(workdir, call, tmp_path):
    with serve() as (address, hub):
        at = f"--workdir={workdir}"
        one_line(call(address, "push", at), "--repo is missing", "--repo=OWNER/NAME")
        one_line(call(address, "push", "--repo=me/x", at, "--parts=soup"), "'soup'", "--parts")
        empty = f"--workdir={tmp_path}"
        one_line(call(address, "push", "--repo=me/x", empty), "nothing finished", "bsjax report")
        one_line(call(address, "push", "--repo=a/b/c", at), "no repository's name")
        one_line(call(address, "pull", "--repo=me/none", at), "has no such repository")
        hub.denies = 403
        one_line(call(address, "push", "--repo=me/x", at), "may not write there (403)", "HF_TOKEN")
        hub.denies = 0
        hub.repos["me/empty"] = {"a.txt": b""}
        one_line(call(address, "pull", "--repo=me/empty", at), "holds nothing of", "--repo")
        one_line(
            call(address, "push", "--repo=me/x", at, is_offline=True), "HF_HUB_OFFLINE is set;"
        )
    gone = "http://127.0.0.1:1"
    one_line(call(gone, "push", "--repo=me/x", at), "cannot be reached; see to the network")
    one_line(call(gone, "pull", "--repo=me/x", at), "and the cache lacks it")
    assert files_of(workdir)


def test_a_damaged_file_is_neither_sent_nor_taken(workdir, call, tmp_path):
    with serve() as (address, hub):
        line = ("push", "--repo=me/thing", f"--workdir={workdir}")
        assert call(address, *line).returncode == 0
        there = hub.repos["me/thing"]
        there["report/index.html"] += b"!"
        fresh = tmp_path / "fresh"
        one_line(call(address, "pull", "--repo=me/thing", f"--workdir={fresh}"), "index.html")
        assert not files_of(fresh)  # not the parts that were whole either
        (workdir / "report" / "index.html").write_text("<p>evil", encoding="utf-8")
        one_line(call(address, *line), "index.html", "bsjax report")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b"[]", lambda b: b.replace(b"1", b"2")]
)
def test_a_damaged_manifest_is_pulled_again_and_not_run_again(workdir, call, tmp_path, damage):
    with serve() as (address, hub):
        assert call(address, "push", "--repo=me/x", f"--workdir={workdir}").returncode == 0
        there = hub.repos["me/x"]
        there["sae/manifest.json"] = damage(there["sae/manifest.json"])
        fresh = tmp_path / "fresh"
        pulled = call(address, "pull", "--repo=me/x", f"--workdir={fresh}")
        one_line(pulled, "sae/manifest.json", "pull it again, or ask who pushed it")
        assert "run again" not in pulled.stderr and "bsjax train" not in pulled.stderr
        assert not files_of(fresh)


def test_a_branch_is_pushed_and_pulled_apart_from_main(workdir, call, tmp_path):
    with serve() as (address, hub):
        line = ("--repo=me/x", f"--workdir={workdir}")
        assert call(address, "push", *line, "--parts=sae").returncode == 0
        assert call(address, "push", *line, "--parts=report", "--revision=v2").returncode == 0
        assert "report/index.html" not in hub.repos["me/x"]
        assert "report/index.html" in hub.repos["me/x@v2"]
        found = {}
        for name in ("main", "v2"):
            at = f"--workdir={tmp_path / name}"
            assert not call(address, "pull", "--repo=me/x", f"--revision={name}", at).returncode
            found[name] = {path.split("/")[0] for path in files_of(tmp_path / name)}
        assert "report" not in found["main"] and "report" in found["v2"]
        pulled = call(
            address, "pull", "--repo=me/x", "--revision=v3", f"--workdir={tmp_path / '3'}"
        )
        one_line(pulled, "no revision 'v3'", "set --revision")


def test_a_repository_that_lacks_a_file_is_refused(workdir, call, tmp_path):
    with serve() as (address, hub):
        assert call(address, "push", "--repo=me/x", f"--workdir={workdir}").returncode == 0
        del hub.repos["me/x"]["comparisons/generated/concepts.parquet"]
        fresh = tmp_path / "fresh"
        line = "me/x lacks comparisons/generated/concepts.parquet, which its manifest lists"
        one_line(call(address, "pull", "--repo=me/x", f"--workdir={fresh}"), line)
        assert not files_of(fresh)


def test_a_manifest_that_leaves_its_folder_is_refused(workdir, call, tmp_path):
    write_json(workdir / "evil", {})
    manifest = json.loads((workdir / "report" / MANIFEST).read_text(encoding="utf-8"))
    manifest.pop(checksums.CHECKSUM)
    manifest["files"]["../../evil"] = manifest["files"]["index.html"]
    with serve() as (address, hub):
        assert call(address, "push", "--repo=me/x", f"--workdir={workdir}").returncode == 0
        hub.repos["me/x"]["report/manifest.json"] = json.dumps(checksums.seal(manifest)).encode()
        fresh = tmp_path / "a" / "b"
        one_line(call(address, "pull", "--repo=me/x", f"--workdir={fresh}"), "../../evil")
        assert not files_of(tmp_path / "a")


def test_other_results_are_not_written_over_unless_asked(workdir, call, tmp_path):
    fresh = f"--workdir={tmp_path / 'fresh'}"
    with serve() as (address, _):
        assert call(address, "push", "--repo=me/x", f"--workdir={workdir}").returncode == 0
        assert call(address, "pull", "--repo=me/x", fresh).returncode == 0
        report = tmp_path / "fresh" / "report"
        (report / "extra.txt").write_text("mine", encoding="utf-8")
        write_manifest(report, stage="report", config={}, parents={}, counts={})
        before = files_of(report)
        one_line(call(address, "pull", "--repo=me/x", fresh), "other results", "--overwrite")
        assert files_of(report) == before
        told = call(address, "pull", "--repo=me/x", fresh, "--overwrite")
        assert told.returncode == 0 and files_of(report) == files_of(workdir / "report")


def test_a_killed_pull_goes_on(workdir, call, tmp_path):
    with serve() as (address, _):
        assert call(address, "push", "--repo=me/x", f"--workdir={workdir}").returncode == 0
        fresh = tmp_path / "fresh"
        assert call(address, "pull", "--repo=me/x", f"--workdir={fresh}").returncode == 0
        whole = files_of(fresh)
        (fresh / "sae" / MANIFEST).unlink()  # as if killed before the last file
        (fresh / "sae" / "sae.safetensors").unlink()
        assert call(address, "pull", "--repo=me/x", f"--workdir={fresh}").returncode == 0
    assert files_of(fresh) == whole
