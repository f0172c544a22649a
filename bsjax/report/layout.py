"""Places of the concepts on a map: UMAP of the dictionary's atoms (arXiv:1802.03426)."""

import pathlib
import warnings

import numpy as np
from absl import logging
from jaxtyping import Float

from bsjax.core import checksums
from bsjax.core.artifacts import atomic_path, hash_json

SETTINGS = {"n_neighbors": 15, "min_dist": 0.1, "metric": "cosine", "random_state": 0}
FILE = "layout.npz"
LEAST = 5  # fewer atoms lie on a circle
# What the places on a map are, by dictionary and where there is none.
BY_DICTIONARY = "UMAP of the dictionary, concepts of like direction lie together"
BY_AMOUNT = "fires across, energy upwards (logarithms): there was no SAE to map its dictionary"


def place_concepts(
    folder: pathlib.Path, dictionary: Float[np.ndarray, "K D"], digest: str
) -> Float[np.ndarray, "K 2"]:
    """Coordinates of every concept; those in `folder` if they were made of the same dictionary.

    Args:
      folder: of the report.
      dictionary: atoms.
      digest: of the dictionary.
    """
    path, key = folder / FILE, hash_json([digest, SETTINGS])
    try:
        return checksums.load_arrays(path, key)["places"]
    except FileNotFoundError:
        pass
    except ValueError as error:
        logging.info("the map is made anew: %s is %s", path, error)
    places = np.asarray(umap_places(dictionary), np.float32)
    with atomic_path(path) as temporary:
        checksums.save_arrays(temporary, key, places=places)
    return places


def umap_places(dictionary: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "K 2"]:
    """UMAP in two dimensions by the angle between atoms."""
    n = len(dictionary)
    if n < LEAST:
        angles = 2 * np.pi * np.arange(n) / max(n, 1)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    with warnings.catch_warnings():
        # It says that a seed means one thread, and what numba thinks of its code.
        warnings.simplefilter("ignore")
        import umap

        settings = SETTINGS | {"n_neighbors": min(SETTINGS["n_neighbors"], n - 1)}
        init = "spectral" if n > 50 else "random"
        return umap.UMAP(init=init, **settings).fit_transform(np.asarray(dictionary, np.float32))


def place_by_amount(fires: np.ndarray, energy: np.ndarray) -> Float[np.ndarray, "K 2"]:
    """Places where there is no dictionary: logarithms of fires and of energy, of like spread.

    Concepts that were never seen stand at the lower left edge.
    """
    amounts = np.stack([fires, energy], axis=1).astype(np.float64)
    seen = (amounts > 0).all(axis=1)
    places = np.zeros_like(amounts)
    if seen.any():
        known = np.log(amounts[seen])
        places[seen] = (known - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-6)
        places[~seen] = places[seen].min(axis=0)
    return places.astype(np.float32)
