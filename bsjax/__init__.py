"""bsjax: conceptual blindspots of text-to-image models, in JAX."""

__version__ = "0.1.0"
