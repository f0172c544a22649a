"""`bsjax.convert.config_keys`, by the name that the generators use."""

from bsjax.convert.config_keys import ABSENT, ANY, Key, check_keys, is_kind, shown

__all__ = ["ABSENT", "ANY", "Key", "check_keys", "is_kind", "shown"]
