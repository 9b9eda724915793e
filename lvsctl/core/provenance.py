"""Where what we last wrote came from, so that the cause of a change can be told when that is gone.

Pure. The ledger keeps it beside what was written. A real server that is in no answer any more was deregistered, or the
configuration no longer asks where it was; a weight that falls back to the instance's own was changed in Consul, or an
override of it ended. Neither can be known from what is there now. Consul does not say who deletes a key, so of an
override that is gone it is told whose it was, and not who cleared it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from lvsctl.config import VirtualServerConfig
from lvsctl.core.failover import named
from lvsctl.core.instance import Instance, Query
from lvsctl.core.nothing import NOTHING
from lvsctl.core.override import Override, Percent, matches
from lvsctl.core.weighing import Effect, Outcome, override_words
from lvsctl.core.words import moment
from netlink.types import RealServerKey

CLOSED: Final = "the configuration opens no overrides any more"
REFILTERED: Final = "the configuration asks for other instances now"
COUNTING: Final = frozenset({Outcome.EFFECTIVE, Outcome.ALONE})


@attrs.frozen(kw_only=True)
class Provenance:
    """What was behind the real servers of one virtual server, and behind their weights, when they were written."""

    service: str = ""  # the Consul service that was asked for; empty where that is not known
    datacenter: str = ""  # whose instances served; empty: the agent's own
    filters: str = ""  # which of them the configuration asked for, as `filters_of` has it
    overrides: tuple[Override, ...] = ()  # that counted, in their order, without what is not needed for words
    left: Mapping[RealServerKey, str] = NOTHING  # why those on their way out left, where that passes


UNKNOWN: Final = Provenance()


def filters_of(config: VirtualServerConfig) -> str:
    """Return what the file asks of instances besides to be of a Consul service; empty where that is to pass."""
    if config.only_passing and not config.tags and not config.meta:
        return ""
    return json.dumps([config.only_passing, sorted(config.tags), sorted(config.meta.items())])


def remembered(effects: Iterable[Effect]) -> tuple[Override, ...]:
    """Return what to remember of the overrides that count."""
    return tuple(
        Override(
            virtual_server=each.override.virtual_server,
            selector=each.override.selector,
            share=each.override.share,
            by=each.override.by,
            until=each.override.until,
        )
        for each in effects
        if each.outcome in COUNTING
    )


def why_unasked(before: Provenance, queries: Sequence[Query]) -> str:
    """Return why what came from `before` is in no answer to `queries`, where it is not asked for any more; or empty."""
    if not before.service or not queries:
        return ""
    if all(query.service != before.service for query in queries):
        return f"the configuration asks for Consul service {queries[0].service!r} now, no longer for {before.service!r}"
    if all(query.datacenter != before.datacenter for query in queries):
        return f"the configuration no longer names {named(before.datacenter)} for it"
    return ""


def why_unweighed(
    before: Provenance, effects: Iterable[Effect], instance: Instance, now: float, *, opened: bool = True
) -> str:
    """Return which override that was behind the weight of `instance` counts no more, and why; empty where none was.

    The one that selects it comes first, then one of a percentage: that changed the weights of the others, too. They are
    `opened` where the configuration lets any count.
    """
    present = {each.override.selector: each for each in effects}
    gone = [
        each
        for each in before.overrides
        if each.selector not in present or present[each.selector].outcome not in COUNTING
    ]
    its = next((each for each in gone if matches(each.selector, instance)), None)
    scaling = next((each for each in gone if isinstance(each.share, Percent) and each.share.hundredths), None)
    override = its or scaling
    if override is None:
        return ""
    words = override_words(attrs.evolve(override, until=None))
    if override.selector in present:
        return f"{words} does not count now ({present[override.selector].why_not})"
    if override.until is not None and override.until <= now:
        return f"{words} is over since {moment(override.until)}"
    return f"{words} was cleared" if opened else f"{words} counts no more: {CLOSED}"
