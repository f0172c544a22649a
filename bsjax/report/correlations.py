"""How the correlation of two models is told: r with its interval, or why there is none."""

from collections.abc import Mapping

from bsjax.stats import models

Matrix = Mapping[tuple[str, str], models.Correlation]
NO_CODES = "not known: no image codes"


def find(matrix: Matrix | None, left: str, right: str) -> models.Correlation:
    """The entry of two sets, in whichever order; none is known of sets that were imported."""
    matrix = matrix or {}
    found = matrix.get((left, right))
    if found is None and (right, left) in matrix:
        found = matrix[right, left]
        found = found._replace(reliability=found.reliability[::-1])
    return models.unknown(NO_CODES) if found is None else found


def as_text(found: models.Correlation, is_self: bool = False) -> str:
    """r with its 95 % interval; of a model with itself its reliability; or the reason."""
    if found.reason == models.TOO_LOW or is_self and not found.reason:
        low = f"{models.TOO_LOW}: " if found.reason else "reliability "
        values = found.reliability[:1] if is_self else found.reliability
        return low + ", ".join(f"{value:.2f}" for value in values)
    if found.reason:
        return found.reason
    return f"{found.r:.2f} [{found.low:.2f}, {found.high:.2f}]"
