"""Every test runs on 8 virtual CPU devices, with silent broadcasts and warnings as errors."""

import os
import pathlib
import warnings

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

import tests.annotations  # noqa: E402, F401

# What annotations say, shapes among it, is checked at run time wherever a test goes.
jaxtyping.install_import_hook("bsjax", "tests.annotations.checked")

jax.config.update("jax_numpy_rank_promotion", "raise")

with warnings.catch_warnings():
    # Third-party modules warn while they are imported; import them once, before warnings count.
    warnings.simplefilter("ignore")
    import torch
    import transformers  # noqa: F401

torch.set_num_threads(2)

REPO = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def golden_dir() -> pathlib.Path:
    return REPO / "tests" / "golden"


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Captioned images that may not be copied into the project: tests skip where absent."""
    path = REPO.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"{path} is absent")
    return path
