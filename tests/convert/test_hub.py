"""Why a repository cannot be had is told, each reason with its own way out."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.convert.hub_server import Answer, serve

REPO = pathlib.Path(__file__).resolve().parents[2]
FLAG = "--config.generator.weights"
# Prints what each repository comes to: files and sizes, the listing, or the refusals.
ASK = """
import json, sys
from bsjax.convert.hub import download_snapshot, list_repository
from bsjax.core.errors import UserError

def told(call):
    try:
        return call()
    except UserError as error:
        return str(error)

def fetched(name):
    root = download_snapshot(name, sys.argv[1], ("unet/*.json",), sys.argv[2] or None)
    return {str(p.relative_to(root)): p.stat().st_size for p in root.rglob("*") if p.is_file()}

names = json.loads(sys.argv[3])
print(json.dumps({
    name: [
        told(lambda: fetched(name)),
        told(lambda: list_repository(name, sys.argv[1], sys.argv[2] or None)),
    ]
    for name in names
}))
"""
FILES = {"unet/config.json": b"{}", "unet/a.safetensors": b"x" * 999, "README.md": b"read"}


def ask(names, cache, revision="", **environment):
    """For each repository: (what was fetched, what is listed) or the error's text."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    variables |= {"PYTHONPATH": str(REPO), "HF_HOME": str(cache), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", ASK, FLAG, revision, json.dumps(names)],
        env=variables | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


REFUSALS = {
    "gated": (Answer(403, "GatedRepo", "no"), ["gated", "accept its terms", "hf auth login"]),
    "gated401": (Answer(401, "GatedRepo", "no"), ["gated", "accept its terms"]),
    "norevision": (
        Answer(404, "RevisionNotFound", "no"),
        ["no revision 'fp16'", "--config.generator.revision"],
    ),
    "unknown": (Answer(404, "RepoNotFound", "no"), ["no such repository", "correct the name"]),
    "private": (Answer(401), ["no such repository, or it is private", "hf auth login"]),
    "forbidden": (Answer(403, "", "no"), ["forbids it (403)"]),
    "disabled": (
        Answer(403, "", "Access to this resource is disabled."),
        ["disabled", "another repository"],
    ),
    "rate": (Answer(429, "", "rate limit"), ["rate limit", "429", "wait"]),
    "broken": (Answer(500), ["(500)", "try again later"]),
    "busy": (Answer(503), ["(503)", "try again later"]),
    "missing": (Answer(404), ["answers 404", "HF_ENDPOINT"]),
    "teapot": (Answer(418), ["answers 418"]),
    "website": (Answer(200, body=b"<html>"), ["not answer as a hub does", "HF_ENDPOINT"]),
    "odd": (Answer(200, body=b"[]"), ["not answer as a hub does", "HF_ENDPOINT"]),
}


def test_each_answer_of_the_hub_is_told_apart(tmp_path):
    answers = {owner: answer for owner, (answer, _) in REFUSALS.items()}
    with serve(answers) as (address, _):
        names = [f"{owner}/x" for owner in answers]
        told = ask(names, tmp_path, "fp16", HF_ENDPOINT=address)
    for owner, (_, words) in REFUSALS.items():
        fetched, listed = told[f"{owner}/x"]
        for word in (*words, f"{owner}/x could not be fetched", FLAG):
            assert word in fetched, f"{owner}: {fetched}"
        assert "offline" not in fetched.lower(), fetched
        assert "\n" not in fetched
        # A listing is refused for the same reason; where the hub has trouble, there is none.
        assert listed == (None if owner in ("rate", "broken", "busy") else fetched)


def test_files_are_listed_with_sizes_and_fetched_by_pattern(tmp_path):
    with serve({"owner": Answer(files=FILES)}) as (address, asked):
        (fetched, listed), = ask(["owner/x"], tmp_path, HF_ENDPOINT=address).values()  # fmt: skip
        assert fetched == {"unet/config.json": 2}
        assert listed == {name: len(body) for name, body in FILES.items()}
        assert not [path for path in asked if path.endswith(("safetensors", "README.md"))]
    # Then the cache is enough, whatever the hub says.
    for answer in (Answer(503), Answer(403, "GatedRepo", "no"), Answer(429)):
        with serve({"owner": answer}) as (address, _):
            told = ask(["owner/x"], tmp_path, HF_ENDPOINT=address)["owner/x"]
            assert told == [{"unet/config.json": 2}, None]
    with serve({"owner": Answer(404, "RevisionNotFound", "no")}) as (address, _):
        fetched, listed = ask(["owner/x"], tmp_path, "v2", HF_ENDPOINT=address)["owner/x"]
        assert "no revision 'v2'" in fetched
        assert listed == fetched
    told = ask(["owner/x", "owner/y"], tmp_path, HF_HUB_OFFLINE="1")
    assert told["owner/x"] == [{"unet/config.json": 2}, None]
    assert "HF_HUB_OFFLINE is set" in told["owner/y"][0]
    assert told["owner/y"][1] is None


@pytest.mark.parametrize(
    ("address", "words", "is_listed"),
    [
        # A port that nobody listens on.
        ("http://127.0.0.1:1", ["cannot be reached", "network"], True),
        ("127.0.0.1:1", ["HF_ENDPOINT=127.0.0.1:1 is no address"], False),
        ("ftp://127.0.0.1:1", ["HF_ENDPOINT=ftp://127.0.0.1:1 is no address"], False),
        ("http://", ["HF_ENDPOINT", "is no address"], False),
    ],
)
def test_addresses_that_are_no_hub(address, words, is_listed, tmp_path):
    fetched, listed = ask(["owner/x"], tmp_path, HF_ENDPOINT=address)["owner/x"]
    for word in (*words, FLAG):
        assert word in fetched
    assert "\n" not in fetched
    assert listed == (None if is_listed else fetched)


def test_a_token_that_does_not_help_is_told_so(tmp_path):
    answers = {
        "gated": Answer(403, "GatedRepo", "no"),
        "stale": Answer(401, "", "Invalid credentials in Authorization header"),
    }
    with serve(answers) as (address, _):
        told = ask(["gated/x", "stale/x"], tmp_path, HF_ENDPOINT=address, HF_TOKEN="hf_x")
    assert "your account has no access" in told["gated/x"][0]
    assert f"ask for it at {address}/gated/x" in told["gated/x"][0]
    assert "does not accept your token; renew it" in told["stale/x"][0]


def test_names_that_are_no_repository(tmp_path):
    for name, (fetched, listed) in ask(["a/b c", "--x/y", "a/b/c"], tmp_path).items():
        assert "this is no repository's name; write it as owner/name" in fetched, name
        assert fetched == listed


def test_a_cache_that_cannot_be_written(tmp_path):
    # Root may write to a read-only folder, so a file stands in the folder's place.
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "hub").write_text("")
    with serve({"owner": Answer(files=FILES)}) as (address, _):
        fetched, listed = ask(["owner/x"], tmp_path / "cache", HF_ENDPOINT=address)["owner/x"]
    assert "cache" in fetched
    assert "cannot be written" in fetched
    assert "HF_HOME" in fetched
    assert listed == {name: len(body) for name, body in FILES.items()}


def test_a_full_disk(tmp_path, monkeypatch):
    import errno

    import huggingface_hub

    from bsjax.convert.hub import download_snapshot
    from bsjax.core.errors import UserError

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left.*HF_HOME") as error:
        download_snapshot("owner/x", FLAG, ("*",))
    assert FLAG in str(error.value)
