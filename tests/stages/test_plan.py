"""plan compiles what training runs and tells what it costs."""

import dataclasses
import json
import math
import pathlib
import runpy

import jax
import pytest
from etils import epath

from bsjax.core.errors import UserError
from bsjax.core.mesh import make_mesh
from bsjax.stages import plan as plan_stage
from bsjax.stages.plan import plan

REPO = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def config():
    return runpy.run_path(str(REPO / "configs" / "rasae_imagenet.py"))["get_config"]("tiny")


def rows_of(workdir):
    return json.loads((workdir / "plan.json").read_text())["rows"]


def test_the_local_devices_in_every_shape(config, tmp_path, capsys):
    plan(config, epath.Path(tmp_path))
    rows = rows_of(tmp_path)
    assert {(row["data"], row["model"]) for row in rows} == {(8, 1), (4, 2), (2, 4), (1, 8)}
    assert all(row["teraflops"] > 0 and row["exchange"] for row in rows)
    printed = capsys.readouterr().out
    assert "here: 8 x cpu" in printed and "not a measurement" in printed


def test_a_mesh_that_this_machine_cannot_have(config, tmp_path, monkeypatch):
    """It is no reason to refuse a topology that can; one that cannot is told before compiling."""
    some = {"4 of them": jax.devices()[:4], "3 of them": jax.devices()[:3]}
    monkeypatch.setattr(plan_stage, "devices_of", some.__getitem__)
    config.plan.fixed_mesh, config.mesh.data, config.mesh.model = True, 2, 2
    config.plan.topology, config.plan.local = "4 of them", True
    plan(config, epath.Path(tmp_path))
    (row,) = rows_of(tmp_path)
    assert (row["topology"], row["data"], row["model"]) == ("4 of them", 2, 2)
    monkeypatch.setattr(plan_stage, "_rows_of", lambda *_: pytest.fail("compiled"))
    for topology, n in (("4 of them,3 of them", 3), ("", 8)):
        config.plan.topology = topology
        with pytest.raises(UserError, match=f"expects 4 devices, got {n}"):
            plan(config, epath.Path(tmp_path))


def test_a_tpu_slice(config, tmp_path, capsys):
    pytest.importorskip("libtpu")
    config.plan.topology, config.plan.local = "v5e:2x4", False
    config.plan.fixed_mesh, config.mesh.data, config.mesh.model = True, 2, 4
    config.train.steps = 1000
    plan(config, epath.Path(tmp_path))
    (row,) = rows_of(tmp_path)
    assert (row["n_chips"], row["memory_gb"], row["fits"]) == (8, 16, True)
    usual = max(row["compute_ms"], row["memory_ms"], row["exchange_ms"])
    assert row["roofline_ms"] == pytest.approx(usual)
    expected = 800 * row["roofline_ms"] + 200 * row["full_precision_ms"]
    assert row["hours"] == pytest.approx(expected / 3.6e6)
    assert "v5e:2x4" in capsys.readouterr().out


def test_gpus_beside_tpus(config, tmp_path, capsys, monkeypatch):
    pytest.importorskip("jax_cuda12_plugin")
    pytest.importorskip("libtpu")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    config.plan.topology, config.plan.local = "h100:8,v5e:2x4,a100", False
    config.plan.fixed_mesh, config.mesh.data, config.mesh.model = True, -1, 1
    config.train.steps = 1000
    plan(config, epath.Path(tmp_path))
    rows = rows_of(tmp_path)
    assert [(row["topology"], row["n_chips"], row["memory_gb"]) for row in rows] == [
        ("h100:8", 8, 80), ("v5e:2x4", 8, 16), ("a100", 1, 80),
    ]  # fmt: skip
    assert all(row["fits"] and row["teraflops"] > 0 and row["traffic_gb"] > 0 for row in rows)
    assert any(key.startswith("all-reduce over 8") for key in rows[0]["exchange"])
    assert not rows[2]["exchange"]
    # The last steps are in float32.
    assert all(row["full_precision_ms"] > 0 for row in rows)
    assert "within 75% of the memory" in capsys.readouterr().out


def test_what_does_not_fit_is_said(config, tmp_path, capsys, monkeypatch):
    pytest.importorskip("libtpu")
    from bsjax.roofline import chips

    small = chips.CHIPS["TPU v5 lite"]._replace(memory=1e5)
    monkeypatch.setitem(chips.CHIPS, "TPU v5 lite", small)
    config.plan.topology, config.plan.local = "v5e:2x2", False
    config.plan.fixed_mesh, config.mesh.data, config.mesh.model = True, 4, 1
    plan(config, epath.Path(tmp_path))
    assert not rows_of(tmp_path)[0]["fits"]
    printed = capsys.readouterr().out
    assert "DOES NOT FIT" in printed and "NOTHING FITS" in printed


def test_what_a_gpu_leaves_to_others_does_not_fit(config, tmp_path, monkeypatch):
    pytest.importorskip("jax_cuda12_plugin")
    from bsjax.roofline import chips

    config.plan.topology, config.plan.local = "h100", False
    plan(config, epath.Path(tmp_path / "a"))
    (row,) = rows_of(tmp_path / "a")
    name = "NVIDIA H100 80GB HBM3"
    for share, fits in ((0.74, True), (0.76, False)):
        memory = row["peak_gb"] * 1e9 / share
        monkeypatch.setitem(chips.CHIPS, name, chips.CHIPS[name]._replace(memory=memory))
        plan(config, epath.Path(tmp_path / str(share)))
        assert rows_of(tmp_path / str(share))[0]["fits"] == fits


def test_an_option_of_the_compiler_is_said():
    numbers = dict.fromkeys((field.name for field in dataclasses.fields(plan_stage.Row)), 1.0)
    known = {"part": "", "topology": "h100:8", "exchange": {}, "fits": True}
    known |= {"n_chips": 8, "data": 8, "model": 1, "images": 0}
    row = plan_stage.Row(**numbers | known | {"options": "xla_gpu_enable_triton_gemm=false"})
    text = plan_stage.render([row], "generate")
    assert "h100:8: compiled with xla_gpu_enable_triton_gemm=false, without which" in text
    row = dataclasses.replace(row, options="")
    assert "compiled with" not in plan_stage.render([row], "generate")


def test_measure(config, tmp_path):
    config.plan.stage = "measure"
    plan(config, epath.Path(tmp_path))
    (row,) = rows_of(tmp_path)
    # 40 images of 69 tokens per device: DINOv2-small has 22 million parameters.
    assert row["teraflops"] > 2 * 20e6 * 69 / 1e12


def test_measure_takes_both_arms_and_the_controls(config):
    config.plan.stage, config.real.limit = "measure", 1000
    mesh = make_mesh(1, 1, jax.devices()[:1])
    for controls, n_sets in (("", 2), ("jpeg,crop", 4)):
        config.measure.controls = controls
        hours = plan_stage._hours(config, "images", mesh, 40, 3.6, math.nan)
        assert hours == pytest.approx(n_sets * 1000 / 40 * 3.6 / 3600)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan.stage": "nonsense"}, "expected one of train_sae, generate, measure"),
        ({"plan.stage": "generate"}, "nothing to compile"),
        ({"plan.local": False}, "nothing to plan for"),
        ({"train.n_concepts": 63, "mesh.model": 8, "plan.fixed_mesh": True, "mesh.data": 1},
         "no mesh shape divides the problem: train.n_concepts=63 is not divisible by mesh.model=8"),
    ],
)  # fmt: skip
def test_mistakes(config, tmp_path, changes, message):
    for key, value in changes.items():
        section, name = key.split(".")
        config[section][name] = value
    with pytest.raises(UserError, match=message):
        plan(config, epath.Path(tmp_path))
