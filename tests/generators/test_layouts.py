"""The released repositories' own files, with tiny weights under the real names."""

import os
import pathlib
import shutil
import subprocess
import sys
import types

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bsjax.convert import tensors as tensor_files
from bsjax.core.errors import UserError
from bsjax.generators import loading
from bsjax.generators.protocol import Settings
from tests.annotations import unchecked
from tests.generators import layouts
from tests.generators.parity import agree

pytestmark = [
    pytest.mark.skipif(not layouts.HUB.is_dir(), reason="the repositories' own files are not here"),
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]
REPO = pathlib.Path(__file__).parents[2]
SETTINGS = Settings(steps=4, guidance=4.0, height=64, width=64, dtype="float32", prior_steps=3)
SYSTEMS = ("sd15", "sd21", "pixart", "kandinsky21")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """System -> (family, weights), each written once."""
    made = {}

    def of(system):
        if system not in made:
            made[system] = layouts.write(system, tmp_path_factory.mktemp(system))
        return made[system]

    return of


def weight_files(weights):
    return sorted(
        path for folder in weights.values() for path in pathlib.Path(folder).glob("*/*.safetensors")
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_component_is_read(system, written):
    family, weights = written(system)
    opened = loading.open_generator(family, "", weights, SETTINGS)
    params = opened.read_params()
    assert set(params) == set(opened.generator.components)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("version", ["sd15", "sd21"])
def test_images_are_those_of_the_pipeline(version, written):
    """diffusers reads the same folder: old names, the real vocabulary and scheduler."""
    family, weights = written(version)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        weights[""], safety_checker=None, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    captions = ["a “quoted” caf&eacute;", "日本語 👩‍👩‍👧"]
    noise = np.random.default_rng(0).normal(size=(2, 16, 16, 4)).astype(np.float32)
    expected = pipeline(
        captions, num_inference_steps=4, guidance_scale=4.0, height=128, width=128,
        latents=torch.from_numpy(noise.transpose(0, 3, 1, 2).copy()), output_type="np",
    ).images  # fmt: skip
    # At 64 pixels the last level's group norms are over two numbers, and show rounding as signs.
    settings = SETTINGS._replace(height=128, width=128)
    opened = loading.open_generator(family, "", weights, settings)
    generator, params = opened.generator, jax.tree.map(jnp.asarray, opened.read_params())

    @jax.jit
    def draw(params, arrays, noise):
        context = generator.encode(params, arrays)
        return generator.decode(params, generator.denoise(params, context, noise))

    images = draw(params, generator.prompts(captions).arrays, noise) / 2 + 0.5
    agree(f"{version} from its own files", np.clip(images, 0, 1), expected, 1e-4)


def rename(tensors, name):
    tensors[f"{name}_2"] = tensors.pop(name)


def reshape(tensors, name):
    tensors[name] = torch.zeros(*tensors[name].shape, 2)


CHANGES = {
    "a name": (rename, "is missing|is unexpected"),
    "a shape": (reshape, "has shape"),
    "one missing": (lambda tensors, name: tensors.pop(name), "is missing"),
    "one more": (lambda tensors, name: tensors.update(more=torch.zeros(1)), "more is unexpected"),
    "whole numbers": (
        lambda tensors, name: tensors.update({name: tensors[name].to(torch.int8)}), "I8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("system", SYSTEMS)
def test_one_wrong_tensor_anywhere_is_told_before_any_is_read(
    system, written, tmp_path, monkeypatch
):
    family, weights = written(system)
    copies = {key: str(tmp_path / (key or "main")) for key in weights}
    for key, folder in weights.items():
        shutil.copytree(folder, copies[key])

    def read(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(tensor_files, "_read", read)
    opened = loading.open_generator(family, "", copies, SETTINGS)
    components = opened.generator.components
    files = [path for path in weight_files(copies) if "-of-" not in path.name]
    assert len(files) >= 2
    for path in files:
        names = sorted(
            name for name in tensor_files.open_files((path,)).shapes
            if not name.startswith(("encoder.", "quant", "transformer.pooler"))
            and not name.endswith(("position_ids", "y_embedding", "pos_embed"))
        )  # fmt: skip
        before = path.read_bytes()
        key, component = next(
            (key, each) for key, each in components.items()
            if pathlib.Path(copies[each.repository if each.repository in copies else ""])
            / each.folder == path.parent
        )  # fmt: skip
        only = types.SimpleNamespace(components={key: component})
        for what, (change, message) in CHANGES.items():
            path.write_bytes(before)
            layouts.edit_tensors(path, lambda t, change=change, names=names: change(t, names[0]))
            source = tensor_files.open_folder(path.parent, component.stems, "")
            with pytest.raises(UserError, match=message) as caught:
                unchecked(loading.check_names)(only, {key: source})
            assert path.parent.name in str(caught.value), what
        # The last change still stands: opening the system tells it.
        with pytest.raises(UserError, match=message):
            loading.open_generator(family, "", copies, SETTINGS)
        path.write_bytes(before)


def test_pixart_with_its_extra_tensor_draws(written, tmp_path):
    """`bsjax generate` from a layout with the real names."""
    family, weights = written("pixart")
    path = next(path for path in weight_files(weights) if path.parent.name == "transformer")
    assert "caption_projection.y_embedding" in tensor_files.open_files((path,)).shapes
    command = [
        sys.executable, "-m", "bsjax.main", "generate", "--config=configs/pixart.py:tiny",
        f"--config.generator.weights={weights['']}", "--config.real.limit=3",
        f"--workdir={tmp_path}", "--config.generator.steps=3",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=REPO, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "images" / "pixart").glob("*.arrayrecord"))) == 1


@pytest.mark.parametrize(
    ("name", "shape"), [("caption_projection.y_embedding_2", (120, 32)), ("y_embedding", (1,))]
)
def test_leftovers_are_left_out_by_their_whole_name(name, shape, written, tmp_path):
    folder = shutil.copytree(written("pixart")[1][""], tmp_path / "copy")
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    layouts.edit_tensors(path, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    with pytest.raises(UserError, match=f"{name} is unexpected"):
        loading.open_generator("pixart", "", {"": str(folder)}, SETTINGS)


POINTERS = {
    "unet/diffusion_pytorch_model.safetensors", "vae/config.json", "tokenizer/vocab.json",
    "tokenizer/merges.txt", "scheduler/scheduler_config.json", "model_index.json",
}  # fmt: skip


@pytest.mark.parametrize("file", sorted(POINTERS))
def test_pointers_are_told(file, written, tmp_path):
    """A clone without git-lfs."""
    folder = shutil.copytree(written("sd15")[1][""], tmp_path / "copy")
    pointer = layouts.HUB / "sd15" / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copyfile(pointer, folder / file)
    with pytest.raises(UserError, match=f"{file}.*git-lfs pointer.*git lfs pull"):
        loading.open_generator("stable_diffusion", "", {"": str(folder)}, SETTINGS)
