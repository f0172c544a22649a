"""How a comparison is made: rules, clusters, seed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bsjax.core.errors import UserError
from bsjax.core.ranges import CLUSTERS, RANGES, told_gone
from bsjax.stats import comparison, divergences


@dataclasses.dataclass(frozen=True)
class Method:
    """How a comparison is made.

    Attributes:
      rules: of the verdicts.
      clusters: what makes pairs repetitions of one another: the same "caption", the same real
        "image", "auto" (either) or "none".
      seed: of the pair drawn from each cluster, of what is held back and of the control.
    """

    rules: comparison.Rules = comparison.Rules()
    clusters: str = "auto"
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """As a manifest has them."""
        chosen = {f"compare.{name}": value for name, value in self.rules._asdict().items()}
        chosen["compare.clusters"] = self.clusters
        return dict(sorted(chosen.items())) | {"seed": self.seed}


def make_method(rules: Mapping[str, Any]) -> Method:
    """A method from named values, as users give them.

    Args:
      rules: form ("relative" or "difference"), temperature (of delta; by default that of the
        reference: 0.4 or 0.8), margin, aligned, fdr, confirm, clusters, seed.

    Raises:
      UserError: no such rule, or a value that cannot be.
    """
    names = (*comparison.Rules._fields, "clusters", "seed")
    for name, value in rules.items():
        if name not in names:
            gone = told_gone(f"compare.{name}").replace("compare.", "")
            expected = gone or f"no such rule; expected one of {', '.join(names)}"
            raise UserError(f"{name}={value!r}: {expected}")
        bounds = RANGES.get(f"compare.{name}") or RANGES.get(name)
        if bounds is not None and not bounds.holds(value):
            raise UserError(f"{{{name}}}={value!r}: expected {bounds}", name)
    chosen = dict(rules)
    form = chosen.get("form", comparison.Rules().form)
    mode = chosen.pop("clusters", Method.clusters)
    for name, value, known in (("form", form, divergences.FORMS), ("clusters", mode, CLUSTERS)):
        if value not in known:
            raise UserError(
                f"{{{name}}}={value!r}: expected one of {', '.join(known)}; set it to one", name
            )
    chosen.setdefault("temperature", divergences.REFERENCE_TEMPERATURE[form])
    seed = chosen.pop("seed", 0)
    numbers = {name: float(value) for name, value in chosen.items() if name != "form"}
    return Method(comparison.Rules(form=form, **numbers), mode, seed)
