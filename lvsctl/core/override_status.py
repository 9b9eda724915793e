"""What `lvsctl status` says of operators' overrides: what became of each, and how it stands with their keys.

Pure.
"""

from lvsctl.config import Config
from lvsctl.core.override import Overrides
from lvsctl.core.status import OverridesStatus, OverrideStatus
from lvsctl.core.weighing import Effect


def overrides_status(
    config: Config, overrides: Overrides, *, prefix: str, data_age: float | None, error: str
) -> OverridesStatus:
    """Return how it stands with `overrides`, which were last heard `data_age` seconds ago."""
    named = {each.virtual_server for each in overrides.entries}
    return OverridesStatus(
        kv_prefix=prefix,
        data_age=data_age,
        error=error,
        ignored={each.key: each.why for each in overrides.ignored},
        elsewhere=tuple(sorted(named - config.virtual_servers.keys())),
    )


def override_status(effect: Effect) -> OverrideStatus:
    """Return what is shown of one override that stands."""
    return OverrideStatus(
        selector=effect.override.selector,
        share=str(effect.override.share),
        by=effect.override.by,
        reason=effect.override.reason,
        until=effect.override.until,
        written=effect.override.written,
        matching=effect.matching,
        smallest=effect.smallest,
        largest=effect.largest,
        why_not=effect.why_not,
    )
