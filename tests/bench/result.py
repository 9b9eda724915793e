"""One line of the outcome: ours, theirs, how they compare, and whether that is what was promised. Pure."""

import enum
import json
from collections.abc import Iterable

import attrs

from tests.bench.timing import Samples, median, spread


class Sense(enum.Enum):
    """What a ratio is, and so on which side of its target it has to be."""

    FASTER = "x faster"  # theirs / ours, at least
    ITS_TIME = "x its time"  # ours / theirs, at most
    SLOPE = "log-log slope"  # of ours over size, at most


@attrs.frozen(kw_only=True)
class Result:
    """One line. A line without a target is there to be read, a line without times was not run and says why."""

    work: str
    shape: str
    against: str
    ours_ms: float | None = None
    theirs_ms: float | None = None
    sense: Sense = Sense.FASTER
    ratio: float | None = None
    target: float | None = None
    spread: float | None = None  # of ours or theirs, whichever is greater; see `timing.spread`
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Tell whether the target is met; None where there is none."""
        if self.target is None:
            return None
        if self.ratio is None:
            return False
        return self.ratio >= self.target if self.sense is Sense.FASTER else self.ratio <= self.target

    @property
    def target_words(self) -> str:
        """Return `>= 90`, empty without a target."""
        if self.target is None:
            return ""
        return f"{'>=' if self.sense is Sense.FASTER else '<='} {self.target:g}"


def compared(
    work: str,
    shape: object,
    against: str,
    samples: Samples,
    sense: Sense,
    *,
    target: float | None = None,
    note: str = "",
) -> Result:
    """Return the line that compares the medians of `samples`."""
    ours, theirs = median(samples.ours), median(samples.theirs)
    return Result(
        work=work,
        shape=str(shape),
        against=against,
        ours_ms=ours,
        theirs_ms=theirs,
        sense=sense,
        ratio=theirs / ours if sense is Sense.FASTER else ours / theirs,
        target=target,
        spread=max(spread(samples.ours), spread(samples.theirs)),
        note=note,
    )


def as_json(results: Iterable[Result]) -> str:
    """Return `results` as the text of bench.json: a list of objects."""
    return json.dumps([_row(each) for each in results], indent=1, ensure_ascii=False) + "\n"


def _row(each: Result) -> dict[str, object]:
    return {
        "work": each.work,
        "shape": each.shape,
        "against": each.against,
        "ours_ms": _rounded(each.ours_ms),
        "theirs_ms": _rounded(each.theirs_ms),
        "ratio": _rounded(each.ratio),
        "ratio_is": each.sense.value,
        "target": each.target_words or None,
        "met": each.met,
        "spread": _rounded(each.spread),
        "note": each.note,
    }


def from_json(text: str) -> list[Result]:
    """Return the results that `as_json` wrote."""
    return [
        Result(
            work=row["work"],
            shape=row["shape"],
            against=row["against"],
            ours_ms=row["ours_ms"],
            theirs_ms=row["theirs_ms"],
            sense=Sense(row["ratio_is"]),
            ratio=row["ratio"],
            target=float(row["target"].split()[1]) if row["target"] else None,
            spread=row["spread"],
            note=row["note"],
        )
        for row in json.loads(text)
    ]


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.6g}")
