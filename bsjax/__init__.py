"""bsjax: conceptual blindspots of text-to-image models, in JAX.

    import bsjax

    encoder = bsjax.load_encoder("facebook/dinov2-with-registers-base")
    sae = bsjax.load_sae("matybohacek/RA-SAE-DINOv2-32k")
    real = bsjax.measure("REAL", encoder, sae)  # a folder of images with captions
    pictures = bsjax.load_generator("REPOSITORY").generate(real.captions, keys=real.keys, seed=0)
    generated = bsjax.measure(pictures, encoder, sae)
    result = bsjax.compare(real, generated)
    result.to_pandas().sort_values("delta")[["concept", "delta", "q", "verdict", "words"]]
    result.plot()
    result.report("runs/mine")  # the explorer, as a folder that opens from disk

Images are a folder, or a list of files, of uint8 arrays [H, W, 3], of PIL images, of records with
image and caption. On arrays: `encoder.encode(images)` gives tokens [n, T, D], `sae.encode(tokens)`
codes [n, T, K], `sae.decode(codes)` tokens, `sae.dictionary` atoms [K, D]. Any other SAE's image
codes [n, K] are compared by `bsjax.compare_codes(real, generated)`. `bsjax.train_sae` trains an SAE
of one's own; `bsjax.run` does all that the command `bsjax run` does, and `bsjax.open_results` reads
what it left. A mistake is a `bsjax.UserError`, one line: expected, got, what to change.

Nothing is imported before it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bsjax.api.comparison import Comparison, compare, compare_codes
    from bsjax.api.encoder import Encoder, load_encoder
    from bsjax.api.evidence import captions_needed, replicate
    from bsjax.api.generator import TextToImage, load_generator
    from bsjax.api.images import Picture
    from bsjax.api.measurement import measure
    from bsjax.api.sae import SAE, load_sae
    from bsjax.api.training import train_sae
    from bsjax.api.workdir import Results, open_results, run, show
    from bsjax.core.errors import UserError
    from bsjax.results.measures import Measured

# Name -> module that has it.
_EXPORTS = {
    "Comparison": "bsjax.api.comparison",
    "Encoder": "bsjax.api.encoder",
    "Measured": "bsjax.results.measures",
    "Picture": "bsjax.api.images",
    "Results": "bsjax.api.workdir",
    "SAE": "bsjax.api.sae",
    "TextToImage": "bsjax.api.generator",
    "UserError": "bsjax.core.errors",
    "captions_needed": "bsjax.api.evidence",
    "compare": "bsjax.api.comparison",
    "compare_codes": "bsjax.api.comparison",
    "load_encoder": "bsjax.api.encoder",
    "load_generator": "bsjax.api.generator",
    "load_sae": "bsjax.api.sae",
    "measure": "bsjax.api.measurement",
    "open_results": "bsjax.api.workdir",
    "replicate": "bsjax.api.evidence",
    "run": "bsjax.api.workdir",
    "show": "bsjax.api.workdir",
    "train_sae": "bsjax.api.training",
}
__all__ = [
    "Comparison",
    "Encoder",
    "Measured",
    "Picture",
    "Results",
    "SAE",
    "TextToImage",
    "UserError",
    "captions_needed",
    "compare",
    "compare_codes",
    "load_encoder",
    "load_generator",
    "load_sae",
    "measure",
    "open_results",
    "replicate",
    "run",
    "show",
    "train_sae",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'bsjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
