"""Print tables: with colour on a terminal, plain for everybody else."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Words that deserve a colour where they are a whole cell.
COLOURS = {"on": "green", "ok": "green", "off": "yellow", "failed": "red", "expired": "red"}

#: What makes a terminal do something other than print, but for line end and tab.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """Text from elsewhere, for a terminal: what looks like an escape sequence must not be one."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """One row a line; ``title`` stands above."""
    cleaned = [[" ".join(harmless(cell).split()) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _coloured(columns, cleaned, title)
    else:
        _plain(columns, cleaned, title)


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    if title:
        print(title)
    lines = [*([[column.upper() for column in columns]] if any(columns) else []), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


def _coloured(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        box=box.SIMPLE_HEAD,
        show_header=any(columns),
        title=title or None,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    for index, column in enumerate(columns):
        grid.add_column(column, style="bold" if index == 0 else "", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console().print(grid)
