"""Experiments, each a file with `get_config`; installed as `bsjax.configs`."""
