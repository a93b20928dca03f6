"""The usage of an account drawn on the server: bars of one denomination by day, as an SVG inside the page.

No script and no style attribute: colours and sizes come from the style sheet. The words around the bars are the page's
own text, so they stay readable where the drawing is narrow. Whoever cannot see the bars is told their sum, and reads
the numbers from the table beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from html import escape
from typing import Final

_HEIGHT: Final = 100
_STEP: Final = 20
_GAP: Final = 5


def figure(name: str, days: Sequence[date], amounts: Sequence[int], written: Callable[[int], str]) -> str:
    """Bars of ``amounts`` by day. ``name`` and what ``written`` makes of an amount are not escaped yet."""
    most, width = max(1, *amounts), _STEP * len(days)
    drawn = []
    for index, (at, amount) in enumerate(zip(days, amounts, strict=True)):
        if amount > 0:
            height = max(1, amount * _HEIGHT // most)
            place = f'x="{index * _STEP + _GAP}" y="{_HEIGHT - height}" width="{_STEP - _GAP}" height="{height}"'
            drawn.append(f"<rect {place}><title>{escape(f'{short(at)}: {written(amount)}')}</title></rect>")
    first, last = short(days[0]), short(days[-1])
    summed = f"{name}: {written(sum(amounts))} from {first} to {last}, at most {written(most)} on one day."
    return (
        f'<figure>\n<figcaption class="ends"><span>{escape(name)} by day</span>'
        f"<span>at most {escape(written(most))}</span></figcaption>\n"
        f'<svg class="chart" viewBox="0 0 {width} {_HEIGHT}" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(summed)}">\n{"".join(drawn)}\n</svg>\n'
        f'<p class="ends"><span>{first}</span><span>{last}</span></p>\n</figure>\n'
    )


def short(at: date) -> str:
    """A day without its year: ``1 Feb``."""
    return at.strftime("%d %b").lstrip("0")
