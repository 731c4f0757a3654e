"""What was found of one part of the machine, and the table of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

WORKS, MISSING, BROKEN = "works", "missing", "broken"


@dataclass(frozen=True)
class Finding:
    """One line of the table. ``needed``: whether hpcreco cannot do its main job without it."""

    name: str
    state: str
    detail: str = ""
    remedy: str = ""
    needed: bool = True


def show(findings: list[Finding], healthy: bool) -> None:
    """Prints the table, its remedies under it, and one line that sums it up."""
    from rich.console import Console
    from rich.table import Table

    style: Mapping[str, str] = {WORKS: "green", MISSING: "yellow", BROKEN: "bold red"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("part", "state", "what was found, and what to do"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "part")
    escape: Callable[[str], str] = lambda text: text.replace("[", r"\[")  # noqa: E731
    for f in findings:
        optional = " (optional)" if f.state == MISSING and not f.needed else ""
        remedy = f"\n[italic]-> {escape(f.remedy)}[/]" if f.remedy and f.state != WORKS else ""
        table.add_row(f.name, f"[{style[f.state]}]{f.state}[/]{optional}", escape(f.detail) + remedy)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "\nhpcreco can work here" if healthy else "\nsomething needed is missing or broken (see the arrows)"
    )
