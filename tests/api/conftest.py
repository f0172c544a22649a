"""The scenes world's networks on emoji, measured once by the stages and once by the library."""

import pathlib

import pytest
from etils import epath

import bsjax
from bsjax import presets
from bsjax.stages.compare import compare
from bsjax.stages.measure import measure

N_IMAGES = 24
REAL, GENERATED = presets.EMOJI / "real", presets.EMOJI / "generated"


@pytest.fixture(scope="session")
def encoder():
    return bsjax.load_encoder(str(presets.SCENES / "encoder"))


@pytest.fixture(scope="session")
def sae():
    return bsjax.load_sae(str(presets.SCENES / "sae"))


@pytest.fixture(scope="session")
def config():
    config = presets.experiment()
    presets.on_scenes(config, N_IMAGES)
    config.generator = presets.no_generator()
    config.encoder.batch_per_device = -1
    for section, path in (("real", REAL), ("generated", GENERATED)):
        config[section].source, config[section].path = "folder", str(path)
        config[section].limit = N_IMAGES
    return config


@pytest.fixture(scope="session")
def workdir(config, tmp_path_factory) -> pathlib.Path:
    """What the stages leave."""
    folder = epath.Path(tmp_path_factory.mktemp("stages"))
    measure(config, folder)
    compare(config, folder)
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def real(encoder, sae):
    return bsjax.measure(str(REAL), encoder, sae, limit=N_IMAGES)


@pytest.fixture(scope="session")
def generated(encoder, sae):
    return bsjax.measure(str(GENERATED), encoder, sae, limit=N_IMAGES)
