"""Pictures of a report, each with the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcreco.pages import page
from hpcreco.pages.files import write_rows
from hpcreco.shards import atomic

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Okabe and Ito's, told apart by colour-blind readers
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DPI = 110
#: inches of a picture that a phone still shows at a readable size, and two of which fit side by side on a desk
SIZE = (5.2, 4.2)

Row = Mapping[str, float | int | str]


@dataclass(frozen=True)
class Picture:
    """A figure, what it shows in a sentence, and its numbers; none where a table of the report has them."""

    figure: Figure
    caption: str
    rows: Sequence[Row]


def plain_ticks(axis: Axis) -> None:
    """Numbers as numbers on a logarithmic axis, only those that start with 1, 2 or 5."""
    from matplotlib.ticker import FuncFormatter

    def text(value: float, _: int | None = None) -> str:
        return f"{value:g}" if f"{value:e}"[0] in "125" else ""

    axis.set_major_formatter(FuncFormatter(text))
    axis.set_minor_formatter(FuncFormatter(text))


def write_pictures(folder: Path, pictures: Mapping[str, Picture]) -> str:
    """NAME.png and NAME.csv of each picture into `folder`; returns the HTML that shows them."""
    images = []
    for name, picture in pictures.items():
        content = page.png(picture.figure, DPI)
        with atomic(folder / f"{name}.png") as temporary:
            temporary.write_bytes(content)
        if picture.rows:
            write_rows(folder / f"{name}.csv", picture.rows)
        images.append(page.image(content, picture.caption))
    return page.gallery(images)
