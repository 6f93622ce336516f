"""The claims of the literature beside what the specs give."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from cnngraph.shape import TensorShape
from cnngraph.zoo.literature import Claim

if TYPE_CHECKING:
    from rich.table import Table


def claims_table(claims: list[Claim]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("")
    table.add_column("said", justify="right", no_wrap=True)
    table.add_column("is", justify="right", no_wrap=True)
    table.add_column("said is off by", justify="right", no_wrap=True)
    for topic, group in groupby(claims, key=lambda claim: claim.topic):
        table.add_row(topic, style="bold")
        for claim in group:
            table.add_row(f"  {claim.quantity}", figure(claim.claimed), figure(claim.found), deviation(claim))
            if claim.note and deviation(claim) not in ("", "-"):
                table.add_row(f"    {claim.note}", style="dim")
        table.add_row()
    return table


def claim_data(claim: Claim) -> dict[str, Any]:
    return {
        "topic": claim.topic,
        "quantity": claim.quantity,
        "claimed": _plain(claim.claimed),
        "found": _plain(claim.found),
        "off": claim.off,
        "source": claim.source,
        "note": claim.note or None,
    }


def figure(value: float | TensorShape | None) -> str:
    if value is None:
        return ""
    if isinstance(value, TensorShape):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def deviation(claim: Claim) -> str:
    """`-7.1%`; `-` where said and found are the same as far as they are told."""
    if claim.off is None:
        return ""
    return "-" if abs(claim.off) < 5e-4 else f"{claim.off:+.1%}"


def _plain(value: float | TensorShape | None) -> Any:
    return list(value) if isinstance(value, TensorShape) else value
