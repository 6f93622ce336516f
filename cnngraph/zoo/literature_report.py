"""Published figures beside those computed from the specs, as a table and as plain data."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from cnngraph.report.terminal import simple_table
from cnngraph.shape import TensorShape
from cnngraph.zoo.literature import Claim

if TYPE_CHECKING:
    from rich.table import Table


def claims_table(claims: list[Claim]) -> Table:
    """A row for each claim, grouped by topic."""
    table = simple_table(left=("",), right=("published", "computed", "difference"))
    for topic, group in groupby(claims, key=lambda claim: claim.topic):
        table.add_row(topic, style="bold")
        for claim in group:
            table.add_row(
                f"  {claim.quantity}", figure(claim.claimed), figure(claim.found), deviation(claim)
            )
            if claim.note and deviation(claim) not in ("", "-"):
                table.add_row(f"    {claim.note}", style="dim")
        table.add_row()
    return table


def claim_data(claim: Claim) -> dict[str, Any]:
    """A claim as plain data."""
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
    """`61,100,840`, `9.22` or `64x7x7`."""
    if value is None:
        return ""
    if isinstance(value, TensorShape):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def deviation(claim: Claim) -> str:
    """`-7.1%`; `-` if the two are equal up to rounding, empty if they cannot be compared."""
    if claim.off is None:
        return ""
    return "-" if abs(claim.off) < 5e-4 else f"{claim.off:+.1%}"


def _plain(value: float | TensorShape | None) -> Any:
    return list(value) if isinstance(value, TensorShape) else value
