"""Fills in the pages that come from the code: columns of tables, stages."""

from collections.abc import Callable
from typing import Any


def _columns() -> str:
    from bsjax.results import columns

    return columns.describe_tables()


def _stages() -> str:
    from bsjax import pipeline

    return f"```\n{pipeline.describe()}\n```"


GENERATED: dict[str, Callable[[], str]] = {
    "<!-- columns -->": _columns,
    "<!-- stages -->": _stages,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls it with the text of each page."""
    for mark, make in GENERATED.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown
