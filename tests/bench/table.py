"""The outcome as text: one aligned table within 120 columns, and what was met. Pure."""

import textwrap
from collections.abc import Sequence

from tests.bench.result import Result

HEAD = ("work", "shape", "against", "ours ms", "theirs ms", "ratio", "", "target", "met")
RIGHT = (False, False, False, True, True, True, False, False, False)
COLUMNS = 120
QUIET = 0.25  # runs farther apart than this part of their median are worth a word


def render(results: Sequence[Result]) -> str:
    """Return the table of `results`, their notes below their lines, and the counts."""
    rows = [_cells(each) for each in results]
    widths = [max(len(row[column]) for row in (HEAD, *rows)) for column in range(len(HEAD))]
    lines = [_line(HEAD, widths), _line(tuple("-" * width for width in widths), widths)]
    for each, row in zip(results, rows, strict=True):
        lines.append(_line(row, widths))
        if each.note:
            lines += textwrap.wrap(each.note, COLUMNS, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([*lines, "", *_summary(results)]) + "\n"


def milliseconds(value: float | None) -> str:
    """Return a time with three digits that matter: `3,118`, `33.1`, `0.0471`; `-` for none."""
    if value is None:
        return "-"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 4
    return f"{value:,.{digits}f}"


def _cells(each: Result) -> tuple[str, ...]:
    ratio = "-" if each.ratio is None else f"{each.ratio:.2f}" if each.ratio < 10 else f"{each.ratio:.1f}"
    return (
        each.work,
        each.shape,
        each.against,
        milliseconds(each.ours_ms),
        milliseconds(each.theirs_ms),
        ratio,
        each.sense.value if each.ratio is not None else "",
        each.target_words or "-",
        {True: "yes", False: "no", None: "-"}[each.met],
    )


def _line(cells: tuple[str, ...], widths: Sequence[int]) -> str:
    parts = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, RIGHT, strict=True)
    ]
    return "  ".join(parts).rstrip()


def _summary(results: Sequence[Result]) -> list[str]:
    judged = [each for each in results if each.met is not None]
    missed = [f"{each.work} {each.shape} against {each.against}" for each in judged if not each.met]
    restless = [each for each in results if each.spread is not None and each.spread > QUIET]
    lines = []
    if restless:
        most = max(each.spread or 0.0 for each in restless)
        lines.append(
            f"runs are more than {QUIET:.0%} apart in {len(restless)} of {len(results)} lines, at most {most:.0%}"
        )
    lines += [f"missed: {each}" for each in missed]
    return [*lines, f"{len(judged) - len(missed)} of {len(judged)} targets met"]
