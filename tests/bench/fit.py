"""How a time grows with size: a straight line and an exponent. Pure."""

import math
import statistics
from collections.abc import Sequence

import attrs


@attrs.frozen(kw_only=True)
class Fit:
    """Times at sizes, as a line and as a power of the size."""

    fixed: float  # ms at size 0, of the line
    each: float  # ms per unit of size, of the line
    farthest: float  # largest distance of a time from the line, as a part of that time
    r_squared: float
    exponent: float  # slope of the line through the logarithms: 1 is linear, 0 independent

    def __str__(self) -> str:
        """Return `3.1 ms + 11.2 µs each, R² 0.999, farthest 2 %`."""
        return (
            f"{self.fixed:.1f} ms + {self.each * 1000:.1f} µs for each, R² {self.r_squared:.4f}, "
            f"farthest {self.farthest:.0%}"
        )


def fit(sizes: Sequence[float], times: Sequence[float]) -> Fit:
    """Return the least-squares line through `times` at `sizes`, and the exponent; three points or more, positive."""
    line = statistics.linear_regression(sizes, times)
    distances = [time - (line.intercept + line.slope * size) for size, time in zip(sizes, times, strict=True)]
    mean = statistics.fmean(times)
    total = math.fsum((time - mean) ** 2 for time in times)
    powers = statistics.linear_regression([math.log(size) for size in sizes], [math.log(time) for time in times])
    return Fit(
        fixed=line.intercept,
        each=line.slope,
        farthest=max(abs(distance) / time for distance, time in zip(distances, times, strict=True)),
        r_squared=1 - math.fsum(distance**2 for distance in distances) / total if total else 1.0,
        exponent=powers.slope,
    )
