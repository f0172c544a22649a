"""What img2dataset says of the images that it could not fetch: NNNNN_stats.json beside a shard."""

import json
import pathlib
from collections import Counter
from collections.abc import Iterable

from bsjax.core.foreign import printable

STATS = "_stats"
SHOWN = 3  # reasons that a note names


def losses(shards: Iterable[str]) -> tuple[str, ...]:
    """A note of how many rows of its table img2dataset has no image for, and why.

    Args:
      shards: paths without extension, of shards or of their files of statistics.

    Returns:
      One note; none where nothing is told or nothing was lost.
    """
    n_rows, n_images, n_files = 0, 0, 0
    reasons: Counter[str] = Counter()
    for place in dict.fromkeys(_stats_of(shard) for shard in shards):
        try:
            told = json.loads(place.read_text(encoding="utf-8"))
            n_rows, n_images = n_rows + int(told["count"]), n_images + int(told["successes"])
            reasons.update({str(k): int(n) for k, n in told["status_dict"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # no file of img2dataset
        n_files += 1
    if n_images >= n_rows:
        return ()
    reasons.pop("success", None)
    why = "; ".join(f"{n} {printable(reason)[:60]}" for reason, n in reasons.most_common(SHOWN))
    return (
        f"LOST IN DOWNLOAD: img2dataset has an image for {n_images} of the {n_rows} rows of"
        f" {n_files} shards ({why}); the set is those that were still there",
    )


def _stats_of(shard: str) -> pathlib.Path:
    name = shard.removesuffix(".json").removesuffix(STATS)
    return pathlib.Path(f"{name}{STATS}.json")
