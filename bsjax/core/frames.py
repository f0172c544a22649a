"""Tables as pandas has them, where pandas is installed."""

from typing import Any

import pyarrow as pa

from bsjax.core.errors import UserError


def to_pandas(table: pa.Table) -> Any:
    """The table as a pandas.DataFrame.

    Raises:
      UserError: pandas is not installed.
    """
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise UserError(
            "to_pandas() needs pandas, which is not installed: pip install pandas, or use"
            " to_arrow()"
        ) from error
    return table.to_pandas()
