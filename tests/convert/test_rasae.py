"""The published RA-SAE form: fused once, cached, refused when faulty; small in memory."""

import json
import os
import pathlib
import pickletools
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from bsjax.convert.rasae import load_rasae, save_trained
from bsjax.convert.torch_file import open_torch_file
from bsjax.core.artifacts import hash_json
from bsjax.core.errors import UserError
from bsjax.presets import SCENES


@pytest.fixture
def published(golden_dir, tmp_path):
    return pathlib.Path(
        shutil.copy(golden_dir / "ra_sae" / "ra_sae_published.pth", tmp_path / "published.pth")
    )


def test_the_fused_copy_is_used_and_renewed(published):
    first = load_rasae(str(published))
    cache = published.with_suffix(".fused.safetensors")
    assert cache.exists()
    written = cache.stat().st_mtime_ns
    second = load_rasae(str(published))
    assert cache.stat().st_mtime_ns == written
    np.testing.assert_array_equal(first.dictionary, second.dictionary)
    assert first.digest == second.digest
    cache.write_bytes(b"damaged")
    np.testing.assert_array_equal(load_rasae(str(published)).dictionary, first.dictionary)
    assert cache.stat().st_size > 100


def test_another_file_of_the_same_name_and_size_is_read_anew(published):
    first = load_rasae(str(published))
    C = open_torch_file(published).tensors["module.dictionary.C"]
    data = bytearray(published.read_bytes())
    data[C.offset : C.offset + 4] = np.float32(100).tobytes()
    published.write_bytes(data)
    os.utime(published, ns=(0, 0))
    second = load_rasae(str(published))
    assert second.digest != first.digest
    assert np.abs(second.dictionary - first.dictionary).max() > 0.1


def test_a_folder_that_cannot_be_written_is_no_obstacle(published, tmp_path, monkeypatch):
    # Root may write to a read-only folder, so something else has to be in the way.
    published.with_suffix(".fused.safetensors").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = load_rasae(str(published))
    assert len(list((tmp_path / "cache" / "bsjax").iterdir())) == 1
    assert load_rasae(str(published)).digest == first.digest
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_rasae(str(published)).digest == first.digest
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_trained_sae_round_trips(tmp_path, published):
    sae = load_rasae(str(published))
    saved = save_trained(
        tmp_path / "sae" / "sae.safetensors", sae.encoder, sae.dictionary, 1.25, "test"
    )
    for name in (tmp_path, tmp_path / "sae", tmp_path / "sae" / "sae.safetensors"):
        loaded = load_rasae(str(name))
        assert loaded.threshold == 1.25
        assert loaded.digest == saved.digest
        np.testing.assert_array_equal(loaded.encoder["kernel"], sae.encoder["kernel"])


def small_sae(K=3, D=2, seed=0):
    rng = np.random.default_rng(seed)
    encoder = {name: rng.normal(size=K).astype(np.float32) for name in ("bias", "scale", "shift")}
    encoder["kernel"] = rng.normal(size=(D, K)).astype(np.float32)
    return encoder, rng.normal(size=(K, D)).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.5, np.array([0.5, 0.25, 1.0])], ids=["one", "each"])
def test_no_flipped_bit_goes_unseen(tmp_path, threshold):
    path = tmp_path / "sae.safetensors"
    save_trained(path, *small_sae(), threshold, "test")
    data = path.read_bytes()
    load_rasae(str(path))
    for place in range(len(data)):
        for bit in (place % 8, (place + 3) % 8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(UserError) as error:
                load_rasae(str(path))
            assert "\n" not in str(error.value), (place, bit)


def test_flipped_bits_of_the_shipped_sae_are_seen(tmp_path):
    path = tmp_path / "sae.safetensors"
    data = (SCENES / "sae" / "sae.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    for place in (*range(0, 800, 20), *rng.integers(800, len(data), 20)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(UserError):
            load_rasae(str(path))


def test_files_from_before_there_was_a_checksum_are_read(tmp_path):
    path = tmp_path / "sae.safetensors"
    encoder, dictionary = small_sae()
    sae = save_trained(path, encoder, dictionary, 0.5, "test")
    tensors = {f"encoder.{name}": array for name, array in encoder.items()}
    metadata = {"digest": sae.digest, "source": "test", "threshold": "0.5"}
    save_file(tensors | {"dictionary": dictionary}, path, metadata)
    assert load_rasae(str(path)).threshold == 0.5
    tensors["encoder.bias"] = np.nextafter(encoder["bias"], 9)
    save_file(tensors | {"dictionary": dictionary}, path, metadata)
    with pytest.raises(UserError, match="its content is not what was written"):
        load_rasae(str(path))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda e, d: (e | {"bias": e["bias"][:2]}, d, 0.5), "encoder.kernel is .2, 3., expected"),
        (
            lambda e, d: (e | {"scale": e["scale"] * np.nan}, d, 0.5),
            "encoder.scale has values that",
        ),
        (lambda e, d: (e, d[:, :1], 0.5), "encoder.kernel is .2, 3., expected .1, 3."),
        (lambda e, d: (e, d * np.float32(np.inf), 0.5), "dictionary has values that are not"),
        (lambda e, d: (e, d, float("nan")), "threshold has values that are not finite"),
        (lambda e, d: (e, d, -0.5), "threshold is -0.5, expected 0 or more"),
        (lambda e, d: (e, d, np.array([1, -2, 1.0])), "threshold is -2, expected 0 or more"),
        (lambda e, d: (e, d, np.ones(2)), "threshold is .2,., expected .3,."),
    ],
)
def test_what_no_code_can_be_told_from_is_not_written(tmp_path, spoil, expected):
    with pytest.raises(UserError, match=expected):
        save_trained(tmp_path / "sae.safetensors", *spoil(*small_sae()), "test")
    assert not list(tmp_path.iterdir())


def test_two_processes_write_the_same_bytes(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from bsjax.convert.rasae import save_overcomplete, save_trained\n"
        "e = {n: np.ones(3) for n in {'bias', 'scale', 'shift'}} | {'kernel': np.ones((2, 3))}\n"
        "save_trained(sys.argv[1] + '/sae.safetensors', e, np.ones((3, 2)), 0.5, 'test')\n"
        "d = {'W': np.ones((3, 4)), 'Lam': np.ones((3, 2)), 'multiplier': np.zeros(())}\n"
        "params = {'encoder': e, 'dictionary': d}\n"
        "save_overcomplete(sys.argv[1] + '/o.safetensors', params, np.ones((4, 2)), 0.5)\n"
    )
    for seed in "012":
        (tmp_path / seed).mkdir()
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / seed)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
        )
    for name in ("sae.safetensors", "o.safetensors"):
        assert len({(tmp_path / seed / name).read_bytes() for seed in "012"}) == 1
        with safe_open(tmp_path / "0" / name, framework="numpy") as handle:
            assert all(handle.get_tensor(key).dtype == np.float32 for key in handle.keys())  # noqa: SIM118


def test_a_fused_copy_without_threshold_is_made_anew(published):
    """The form of schema 1: a right key of that time, and no threshold."""
    sae = load_rasae(str(published))
    stat = published.stat()
    key = {"schema": 1, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    cache = published.with_suffix(".fused.safetensors")
    tensors = {f"encoder.{name}": array for name, array in sae.encoder.items()}
    old = tensors | {"dictionary": sae.dictionary * 2}
    save_file(old, cache, {"key": hash_json(key), "digest": sae.digest})
    np.testing.assert_array_equal(load_rasae(str(published)).dictionary, sae.dictionary)


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    for name in ("sae.pth", "sae.safetensors"):
        (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        with pytest.raises(UserError, match="git-lfs pointer"):
            load_rasae(str(tmp_path / name))
    with pytest.raises(UserError, match="git-lfs pointer"):
        load_rasae(str(tmp_path))


def save_vectors(path):
    names = open_torch_file(path).tensors
    torch.save({name: torch.zeros(3) for name in names}, path)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: torch.save({"a": torch.zeros(2)}, p), "no RA-SAE: it lacks encoder"),
        (save_vectors, "expected matrices"),
        (lambda p: p.write_bytes(p.read_bytes()[:-3000]), "truncated"),
        (lambda p: p.unlink(), "does not exist"),
    ],
)
def test_faulty_files_end_in_one_line(published, make, expected):
    make(published)
    with pytest.raises(UserError, match=expected) as error:
        load_rasae(str(published))
    assert "\n" not in str(error.value)


def write_full_size(path: pathlib.Path, golden: pathlib.Path, n: int = 32_000, width: int = 768):
    """The golden file's pickle with its sizes replaced, and random tensors, written in blocks."""
    old = np.load(golden / "encode.npz")["dictionary"].shape
    old_m = np.load(golden / "training.npz")["points"].shape[0]
    with zipfile.ZipFile(golden / "ra_sae_published.pth") as archive:
        root = next(x for x in archive.namelist() if x.endswith("data.pkl")).removesuffix(
            "data.pkl"
        )
        data = archive.read(f"{root}data.pkl")
    sizes = {old[0]: n, old_m: n, old[1]: width}
    sizes |= {old[0] * old[1]: n * width, old_m * old[1]: n * width, old[0] * old_m: n * n}
    shapes = [n * width, n, n, n, n * n, n * width, 1, n * width]

    def integer(value):
        return b"J" + int(value).to_bytes(4, "little")

    out = b""
    ops = list(pickletools.genops(data))
    for (op, argument, start), following in zip(ops, [*ops[1:], None], strict=True):
        stop = following[2] if following else len(data)
        piece = data[start:stop]
        if op.name in ("BININT1", "BININT2", "BININT") and argument in sizes:
            piece = integer(sizes[argument])
        out += piece
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}data.pkl", out)
        archive.writestr(f"{root}byteorder", b"little")
        for i, count in enumerate(shapes):
            with archive.open(f"{root}data/{i}", "w", force_zip64=True) as entry:
                for start in range(0, count, 1 << 22):
                    block = rng.random(min(1 << 22, count - start), np.float32)
                    entry.write(block.tobytes())


@pytest.mark.slow
def test_full_size_checkpoint_loads_in_little_memory(golden_dir, tmp_path):
    path = tmp_path / "RA-SAE-DINOv2-32k.pth"
    write_full_size(path, golden_dir / "ra_sae")
    assert path.stat().st_size > 4.3e9
    code = (
        "import json, resource, sys, time\n"
        "from bsjax.convert.rasae import load_rasae\n"
        "start = time.perf_counter()\n"
        "sae = load_rasae(sys.argv[1])\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6\n"
        "print(json.dumps([sae.n_concepts, sae.width, peak, time.perf_counter() - start,"
        " float(sae.dictionary[0, 0])]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    n_concepts, width, peak, seconds, _ = json.loads(run.stdout.splitlines()[-1])
    assert (n_concepts, width) == (32_000, 768)
    sys.stderr.write(f"\nfull-size load: peak {peak:.2f} GB, {seconds:.0f} s\n")
    assert peak < 2.5
