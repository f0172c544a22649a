"""Checkpoints of overcomplete: as it computes itself, or refused by the name of what differs."""

import json
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch

from bsjax.convert.rasae import load_parameters, load_rasae, save_overcomplete
from bsjax.core.errors import UserError
from bsjax.sae.encoder import pre_codes, threshold_codes
from tests import overcomplete

K, D, M = 96, 24, 80


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return overcomplete.load_or_skip()


def make_model(
    threshold=None, kind="BatchTopKSAE", blocks=1, norm=torch.nn.LayerNorm, **dictionary
):
    library = overcomplete.load()
    torch.manual_seed(0)
    encoder = library.MLPEncoder(D, K, nb_blocks=blocks, norm_layer=norm)
    points = torch.randn(M, D)
    if kind == "RATopKSAE":
        return library.RATopKSAE(D, K, points, top_k=5, encoder_module=encoder)
    model = library.BatchTopKSAE(D, K, top_k=160, encoder_module=encoder)
    model.dictionary = library.RelaxedArchetypalDictionary(D, K, points, **dictionary)
    with torch.no_grad():
        model.dictionary.W += 0.3 * torch.rand(K, M)
        model.dictionary.Relax += torch.randn(K, D)
        model.dictionary.multiplier += 0.1
        for name, parameter in model.encoder.named_parameters():
            if name.endswith("1.weight") or "bias" in name:
                parameter += 0.2 * torch.randn(parameter.shape)
    model.running_threshold = threshold
    return model


def expected_of(model, tokens):
    """Codes and dictionary of the reference in its inference mode."""
    model.train()
    model.dictionary.get_dictionary()  # projects, as every step of training does
    model.eval()
    with torch.no_grad():
        return model.encode(tokens)[1].numpy(), model.dictionary.get_dictionary().numpy()


def codes_of(sae, tokens):
    encoder = jax.tree.map(jnp.asarray, sae.encoder)
    return np.asarray(threshold_codes(pre_codes(encoder, jnp.asarray(tokens)), sae.threshold))


def wrapped(model):
    return torch.nn.DataParallel(model)


FORMS = {
    "object": lambda m: m,
    "DataParallel": wrapped,
    "in a dict": lambda m: {"model": wrapped(m)},
    "beside its state": lambda m: {"state_dict": m.state_dict(), "running_threshold": 0.5},
    "compiled": lambda m: {
        "model": {f"_orig_mod.module.{k}": v for k, v in m.state_dict().items()}
        | {"running_threshold": torch.tensor([0.5])}
    },
    "threshold of the wrapper": lambda m: (
        setattr(m, "running_threshold", None) or _set(wrapped(m), running_threshold=0.5)
    ),
}


def _set(target, **values):
    for name, value in values.items():
        parts = name.split("__")
        for part in parts[:-1]:
            target = target[int(part)] if part.isdigit() else getattr(target, part)
        setattr(target, parts[-1], value)
    return target


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("delta", [0.7, torch.tensor(0.7)], ids=["number", "tensor"])
@pytest.mark.parametrize("threshold", [torch.tensor(0.5), 0.5, np.float64(0.5)], ids=type)
def test_fires_as_often_as_the_reference(tmp_path, form, delta, threshold):
    model = make_model(threshold, delta=delta)
    path = tmp_path / "sae.pth"
    torch.save(FORMS[form](model), path)
    model.running_threshold = torch.tensor(0.5)
    tokens = torch.randn(500, D)
    has_delta = "state" not in form and form != "compiled"
    if not has_delta:
        model.dictionary.delta = 1.0
    codes, atoms = expected_of(model, tokens)
    first, cached = load_rasae(str(path)), load_rasae(str(path))
    for sae in (first, cached):
        assert sae.threshold == 0.5
        got = codes_of(sae, tokens.numpy())
        assert (got > 0).sum() == pytest.approx((codes > 0).sum(), rel=1e-3)
        np.testing.assert_allclose(got, codes, atol=1e-5)
        np.testing.assert_allclose(sae.dictionary, atoms, atol=1e-5)
    # The test can fail: with the published threshold half as many fire.
    assert (got > 0).sum() > 1.4 * (got >= 0.829).sum()


def test_a_threshold_is_none_where_the_file_has_none(tmp_path, golden_dir):
    path = tmp_path / "sae.pth"
    for content in (make_model().state_dict(), wrapped(make_model())):
        torch.save(content, path)
        assert load_rasae(str(path)).threshold is None
    path.write_bytes((golden_dir / "ra_sae" / "ra_sae_published.pth").read_bytes())
    assert load_rasae(str(path)).threshold is None


def test_after_inference_its_own_atoms_are_those_read(tmp_path):
    model = make_model(0.5)
    _, atoms = expected_of(model, torch.randn(3, D))
    path = tmp_path / "sae.pth"
    torch.save(model, path)
    np.testing.assert_allclose(load_rasae(str(path)).dictionary, atoms, atol=1e-5)
    with torch.no_grad():
        model.dictionary.Relax *= 0.5  # its own atoms are now of other weights
    torch.save(model, path)
    with pytest.raises(UserError, match="_fused_dictionary.*is not what its W, C, Relax"):
        load_rasae(str(path))
    torch.save(model.train(), path)  # and in training they are made anew
    load_rasae(str(path))


def test_rows_are_not_shortened_in_silence(tmp_path, caplog):
    path = tmp_path / "sae.pth"
    torch.save(make_model().state_dict(), path)
    with caplog.at_level(logging.WARNING):
        load_rasae(str(path))
    assert "does not say what was allowed (delta)" in caplog.text


def test_what_stands_beside_the_sae_is_told(tmp_path, caplog):
    path = tmp_path / "sae.pth"
    torch.save({"epoch": 3, "state_dict": make_model().state_dict()}, path)
    with caplog.at_level(logging.WARNING):
        load_rasae(str(path))
    assert "not used, for it is no part of the SAE: epoch" in caplog.text


def edited(**changes):
    """The state dict with tensors replaced; None takes one away."""

    def make():
        state = dict(make_model().state_dict())
        for name, change in changes.items():
            name = name.replace("__", ".")
            state[name] = change(state[name]) if callable(change) else change
        return {name: value for name, value in state.items() if value is not None}

    return make


def with_attributes(**values):
    def make():
        model = make_model(0.5)
        for name, value in values.items():
            _set(model, **{name: value})
        return wrapped(model)

    return make


def spoiled(value):
    def change(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return change


NAMES = (
    *(f"encoder.final_block.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")),
    *(f"dictionary.{n}" for n in ("W", "C", "Relax", "multiplier")),
)
FAULTS = {
    "missing": lambda t: None,
    "misshapen": lambda t: t[None],
    "whole numbers": lambda t: t.long(),
    "nan": spoiled(float("nan")),
    "inf": spoiled(float("inf")),
    "half a byte": lambda t: t.to(torch.float8_e4m3fn),
    "not contiguous": lambda t: torch.zeros(2, 2).T[:, :1] if t.ndim < 2 else t.T.contiguous().T,
}


@pytest.mark.parametrize("read", [load_rasae, load_parameters])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_each_tensor_is_refused_by_name(tmp_path, name, fault, read):
    path = tmp_path / "sae.pth"
    torch.save(edited(**{name: FAULTS[fault]})(), path)
    with pytest.raises(UserError, match=name) as error:
        read(str(path))
    assert "\n" not in str(error.value)
    if fault in ("half a byte", "not contiguous"):
        return
    model = {k: v.contiguous() for k, v in edited(**{name: FAULTS[fault]})().items()}
    safetensors.torch.save_file(model, tmp_path / "sae.safetensors")
    with pytest.raises(UserError, match=name):
        read(str(tmp_path / "sae.safetensors"))


CASES = {
    "blocks": (lambda: make_model(0.5, blocks=3), "encoder.mlp_blocks.0 is a Sequential"),
    "blocks' state": (lambda: make_model(blocks=3).state_dict(), r"encoder.mlp_blocks.0.0.weight"),
    "batch norm": (
        lambda: make_model(0.5, norm=torch.nn.BatchNorm1d),
        "encoder.final_block.1 is a BatchNorm1d, expected a LayerNorm",
    ),
    "batch norm's state": (
        lambda: make_model(norm=torch.nn.BatchNorm1d).state_dict(),
        "encoder.final_block.1.running_mean",
    ),
    "no norm": (
        lambda: make_model(norm=torch.nn.Identity, blocks=0).state_dict(),
        "lacks encoder.final_block.1.weight",
    ),
    "top-k": (lambda: make_model(kind="RATopKSAE"), "RATopKSAE, whose codes are the top_k"),
    "wrapped top-k": (lambda: wrapped(make_model(kind="RATopKSAE")), "RATopKSAE"),
    "jump": (edited(thresholds=torch.zeros(K)), "also holds thresholds"),
    "optimizer": (
        lambda: {"model": make_model().state_dict(), "optimizer": {0: {"exp_avg": torch.ones(2)}}},
        "also holds optimizer.0.exp_avg",
    ),
    "list of tensors": (
        lambda: {"model": make_model().state_dict(), "ema": [torch.ones(2)]},
        "also holds ema.0",
    ),
    "two": (
        lambda: {"model": make_model().state_dict(), "ema": make_model().state_dict()},
        "several RA-SAEs, or parts of them, under ema., model.",
    ),
    "parts of two": (
        lambda: {
            ("module." if "Relax" in name else "") + name: tensor
            for name, tensor in make_model().state_dict().items()
        },
        "several RA-SAEs",
    ),
    "two thresholds": (
        lambda: _set(wrapped(make_model(0.5)), running_threshold=0.829),
        "several values of running_threshold: module.running_threshold = 0.5, running_threshold",
    ),
    "doubled": (
        lambda: make_model().state_dict() | {"dictionary": {"C": torch.zeros(M, D)}},
        "dictionary.C twice",
    ),
    "doubled in groups": (
        lambda: _doubled(make_model(0.5)),
        "dictionary.C twice",
    ),
    "another wrapper": (
        lambda: torch.nn.Sequential(make_model(0.5)),
        "the whole is a Sequential, expected a DataParallel",
    ),
    "wrapper's dim": (lambda: _set(wrapped(make_model()), dim=1), "dim is 1, expected 0"),
    "wrapper's own": (
        lambda: _set(wrapped(make_model()), gain=2.0),
        "gain = 2.0, which is no part",
    ),
    "no activation": (lambda: _without_activation(make_model(0.5)), "final_activation is missing"),
}
for name, expected in {
    "running_threshold": "running_threshold is {}, expected a finite number, 0 or more",
    "dictionary__delta": "dictionary.delta is {}, expected a finite number, 0 or more",
}.items():
    for value in (float("nan"), float("inf"), -0.1, "0.5", True, [0.5]):
        CASES[f"{name} {value!r}"] = (
            with_attributes(**{name: value}),
            expected.format(str(value).replace("[", r"\[").replace("]", r"\]")),
        )
    CASES[f"{name} of many"] = (
        with_attributes(**{name: torch.ones(K)}),
        rf"is \({K},\), expected one number",
    )
for value in (0, -3, 2.5, float("nan"), "160", True, torch.tensor(0), torch.tensor(1.5)):
    CASES[f"top_k {value!r}"] = (with_attributes(top_k=value), "module.top_k is .*positive whole")
for name, value in {
    "encoder__final_block__1__eps": 1e-6,
    "encoder__final_block__1__normalized_shape": (K, 1),
    "encoder__final_block__1__elementwise_affine": False,
    "encoder__final_block__0__in_features": D + 1,
    "encoder__final_block__0__out_features": None,
    "encoder__output_activation": torch.nn.GELU,
    "encoder__norm_layer": torch.nn.Identity,
    "encoder__nb_blocks": 2,
    "encoder__residual": 0.5,
    "encoder__input_size": D + 1,
    "encoder__n_components": 5,
    "encoder__temperature": 2.0,
    "dictionary__in_dimensions": 5,
    "dictionary__nb_concepts": float(K),
    "dictionary__nb_candidates": 5,
    "dictionary__use_multiplier": False,
    "dictionary__scale": np.float32(2),
    "nb_concepts": 5,
    "threshold_momentum": float("nan"),
    "surprise": None,
    "dtype": torch.float16,
}.items():
    CASES[f"{name} = {value}"] = (
        with_attributes(**{name: value}),
        "multiplier is 0.1" if "use_mult" in name else f"module.{name.replace('__', '.')} ",
    )


def _doubled(model):
    model.dictionary._parameters["C"] = model.dictionary.C
    return model


def _without_activation(model):
    del model.encoder.final_activation
    return model


@pytest.mark.parametrize("read", [load_rasae, load_parameters])
@pytest.mark.parametrize("case", CASES)
def test_what_is_read_as_nothing_else(tmp_path, case, read):
    make, expected = CASES[case]
    torch.save(make(), tmp_path / "sae.pth")
    with pytest.raises(UserError, match=expected) as error:
        read(str(tmp_path / "sae.pth"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"top_k": None},
        {"top_k": torch.tensor(160)},
        {"top_k": np.int64(160)},
        {"running_threshold": 0.0},
        {"running_threshold": None},
        {"dictionary__delta": 1},
        {"dictionary__delta": 0.0},
        {"encoder__residual": True},
        {"fitted": True, "_fitted_info": {"steps": 5}},
    ],
    ids=str,
)
def test_what_changes_nothing_is_let_through(tmp_path, values):
    torch.save(with_attributes(**values)(), tmp_path / "sae.pth")
    sae = load_rasae(str(tmp_path / "sae.pth"))
    assert sae.threshold == values.get("running_threshold", 0.5)
    assert np.isfinite(sae.dictionary).all()


def test_atoms_that_overflow_are_refused(tmp_path):
    torch.save(edited(dictionary__multiplier=torch.tensor(100.0))(), tmp_path / "sae.pth")
    with pytest.raises(UserError, match="not finite .multiplier 100"):
        load_rasae(str(tmp_path / "sae.pth"))


def test_an_export_is_read_back_with_its_threshold(tmp_path, caplog):
    model = make_model(0.5, delta=0.7)
    torch.save(model, tmp_path / "sae.pth")
    params, C = load_parameters(str(tmp_path / "sae.pth"))
    path = tmp_path / "export.safetensors"
    save_overcomplete(path, params, C, 0.5, relax_radius=0.7)
    expected, got = load_rasae(str(tmp_path / "sae.pth")), load_rasae(str(path))
    assert got.threshold == expected.threshold == 0.5
    assert got.digest == expected.digest
    again, C_again = load_parameters(str(path))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    np.testing.assert_array_equal(C, C_again)
    model.load_state_dict(safetensors.torch.load_file(path))
    for wrong in ("nan", "-1.0", "half"):
        metadata = {"running_threshold": wrong, "format": "pt"}
        safetensors.torch.save_file(model.state_dict(), path, metadata)
        with pytest.raises(UserError, match="running_threshold is '?(nan|-1.0|half)"):
            load_rasae(str(path))
    header = json.loads(pathlib.Path(path).read_bytes()[8:].split(b"}}")[0] + b"}}")
    assert "dictionary.W" in header
