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

from bsjax.convert import rasae
from bsjax.convert.rasae import load_rasae, save_trained
from bsjax.convert.torch_file import open_torch_file
from bsjax.core.errors import UserError


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
    monkeypatch.setattr(rasae, "CACHE_DIR", tmp_path / "cache")
    first = load_rasae(str(published))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert load_rasae(str(published)).digest == first.digest
    (tmp_path / "file").touch()
    monkeypatch.setattr(rasae, "CACHE_DIR", tmp_path / "file")
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
