"""What must not leave, whatever Consul says: a hold on real servers of one virtual server.

Pure. A catalogue that calls instances bad or gone by the dozen is more often wrong than right (a lost permission
answers an empty list with status 200), and a virtual server without real servers is an outage for certain. Three rules,
each for what the one before it leaves:
1. doubt: while Consul's answer is in doubt (`consul.doubt`), what serves by it and is not registered any more stays;
2. the last: where nothing would serve, what serves now stays, what is registered rather than what is gone;
3. the floor: where fewer would serve than `served` asks for, as many stay as are missing, registered ones first.
The whole table has a limit, too, which is one more floor for some (`velocity`).
Of what the last two would hold, that goes which the director itself finds dead (`opinion`), for its clients are refused
anyway; where the operator wants more (`probe`), what it finds decides who is held by them at all. Before them all comes
an operator's order to hold: then all that serves stays, but for what a drain or an override takes out.

What admission rejected is never kept: an address that must not be in the table is worse than an empty one. An
operator's word is no loss: what an override quiesced or is in maintenance counts as serving, and what the file or
another datacenter's turn takes out is not under the floor. A hold ends by itself, or by `lvsctl release`. The fallback
server is no instance and under none of the rules; where there is one, the last ones may leave by an operator's word.
"""

from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.config import Probe
from lvsctl.core.admission import Reason, Rejected
from lvsctl.core.desired import Wanted
from lvsctl.core.fallback import fallbacks, without
from lvsctl.core.nothing import NOBODY, NOTHING
from lvsctl.core.opinion import Opinion
from lvsctl.core.order import NOT_ORDERED, Order, Ordered
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.provenance import filters_of
from lvsctl.core.served import NEVER, NO_FLOOR, Counts, Floor, after, floor_of
from lvsctl.core.share import in_proportion
from netlink.types import RealServer, RealServerKey, RealServers, TableEntry


@attrs.frozen(kw_only=True)
class Hold:
    """The real servers that stay with the weight they had, and why; `floor` where that decides how many."""

    real_servers: RealServers = NOTHING
    why: str = ""
    floor: Floor = NO_FLOOR
    released: RealServers = NOTHING  # what would be held, but that an operator has just let go of it
    suspects: frozenset[RealServerKey] = NOBODY  # what Consul would have go, of which a second opinion is wanted
    by_opinion: frozenset[RealServerKey] = NOBODY  # what is held for that alone; it does not count as serving
    order: Order | None = None  # the operator's, where it is one that holds them


NO_HOLD: Final = Hold()


def guard(
    wanted: Wanted,
    observed: RealServers,
    entry: LedgerEntry | None,
    *,
    now: float,
    released: bool = False,
    absent: AbstractSet[RealServerKey] = NOBODY,
    opinion: Opinion | None = None,
    limit: Floor = NO_FLOOR,
    ordered: Ordered = NOT_ORDERED,
) -> tuple[Hold, Counts]:
    """Return what is held of a virtual server whose real servers in the kernel are `observed`, and the counts then.

    `entry` is what the ledger has of it. Nothing is held where an operator has just `released` it, and the count begins
    anew there as it does where other instances are asked for than those that served. Those `absent` are wanted and the
    kernel does not take them. The `opinion` counts where the virtual server wants one; None where nobody asks for any.
    The `limit` is a floor by the whole table (`velocity`), `ordered` is what operators say of it.
    """
    apart = fallbacks(wanted, entry)
    observed = without(observed, apart)
    written = without(entry.written.real_servers, apart) if entry and entry.written else {}
    before = NEVER
    if entry and _same_instances(entry, wanted):
        serving = len(counted(wanted, written))
        if wanted.config.probe is Probe.ALL:
            serving = min(serving, entry.served.count)  # who stayed for an opinion alone is in what was written
        before = after(entry.served, serving, now)
    floor = max(floor_of(before, wanted.config.floor, now), limit, key=lambda each: each.least)
    opinion = opinion if wanted.config.probe is not Probe.NOBODY else None
    found = hold(
        wanted,
        observed,
        written,
        floor,
        elsewhere=entry is not None and _is_from_elsewhere(entry, wanted),
        absent=absent,
        opinion=opinion,
        ordered=ordered,
    )
    least = floor.least
    if released:
        found, before, least = Hold(released=found.real_servers), NEVER, 0
    if found.real_servers:
        others = {key: each for key, each in wanted.entry.real_servers.items() if key not in wanted.weighed.by}
        as_written = {key: each for key, each in found.real_servers.items() if written.get(key) == each}
        scaled = in_proportion(as_written, others, written)  # but not what a hand gave a weight that we never did
        found = attrs.evolve(found, real_servers={**found.real_servers, **scaled})
    held = found.real_servers.keys() - found.by_opinion
    served = after(before, len(held | _staying(wanted, absent)), now)
    if found.floor is not NO_FLOOR and found.floor is not limit:
        found = attrs.evolve(found, floor=floor_of(served, wanted.config.floor, now))
    whole = served
    if absent:
        whole = after(before, len(held | _staying(wanted, NOBODY)), now)
    return found, Counts(before=before, after=served, whole=whole, least=least)


def hold(
    wanted: Wanted,
    observed: RealServers,
    written: RealServers,
    floor: Floor,
    *,
    elsewhere: bool = False,
    absent: AbstractSet[RealServerKey] = NOBODY,
    opinion: Opinion | None = None,
    ordered: Ordered = NOT_ORDERED,
) -> Hold:
    """Return what stays although `wanted` lets it go.

    It is what serves in `observed`, as we last wrote it (`written`), and what a hand quiesced or deleted since; of what
    was deleted only that which Consul still has, for an old ledger may remember addresses that are somebody else's now.
    Where that came from `elsewhere`, a doubt about the answer of now is none about it.
    """
    doubt = "" if elsewhere else wanted.doubt
    doubtful = _doubtful(wanted, observed, written, ordered.drained) if doubt else {}
    order = ordered.hold
    last = _last(wanted, observed, written)
    serving = _serving(wanted, observed, written, ordered.drained) if order is not None else NOTHING
    if order is not None and (all_of_them := {**serving, **last, **doubtful}):
        return Hold(real_servers=all_of_them, why=f"an operator's order ({order.words})", order=order)
    dead = opinion.dead - doubtful.keys() if opinion and wanted.config.probe is Probe.HELD else NOBODY
    kept = {key: each for key, each in {**last, **doubtful}.items() if key not in dead}  # who is in doubt may be gone
    staying = kept.keys() | _staying(wanted, absent)
    lost = _under_the_floor(wanted, observed, written, staying | absent)
    more = [key for key in lost if key not in dead][: max(0, floor.least - len(staying))]
    dying = dead & (last.keys() | set(lost))
    if not kept and not more and wanted.config.fallback is None:
        kept = dict(last)  # the last ones stay whatever anybody says, where nothing takes over
    if not kept and not more:
        return attrs.evolve(NO_HOLD, suspects=dying) if dying else NO_HOLD
    doubt = f"Consul's answer is in doubt ({doubt})" if doubt else ""
    found = Hold(
        real_servers={**kept, **{key: written[key] for key in more}},
        why=floor.why or f"fewer than {floor.least} of the {floor.most} that served would be left"
        if more
        else doubt or "nothing else would serve",
        floor=floor if more else NO_FLOOR,
    )
    if opinion is None:
        return found
    if wanted.config.probe is Probe.HELD:
        return attrs.evolve(found, suspects=frozenset(found.real_servers.keys() - doubtful.keys()) | dying)
    suspects = {**kept, **{key: written[key] for key in lost}}
    suspects = {key: each for key, each in suspects.items() if key not in doubtful}
    stay = _stay(wanted, observed, found, suspects, opinion)
    if not stay and not doubtful and wanted.config.fallback is None:
        stay = kept.keys()  # the last ones stay whatever anybody says, where nothing takes over
    return _in_opinion(found, suspects, stay)


def counted(wanted: Wanted, real_servers: RealServers) -> AbstractSet[RealServerKey]:
    """Return the real servers that serve, and those that would but for an operator: an override, or maintenance."""
    quiesced = {key for key in wanted.weighed.by if wanted.weighed.weights[key] == 0}
    serving = {key for key, each in real_servers.items() if serves(each) or key in quiesced}
    return serving | _resting(wanted)


def kept_back(
    wanted: Wanted | None, intended: RealServers, observed: RealServers, refused: AbstractSet[RealServerKey], least: int
) -> AbstractSet[RealServerKey]:
    """Return what leaves and may not yet, because the kernel refused some of the real servers that were to come.

    Everything where those that come were to take over and none of them is there; else as many as are missing until
    `least` serve; never what is rejected. `refused` are those the kernel did not take.
    """
    taking_over = {key for key, real_server in intended.items() if serves(real_server)}
    there = {key for key in taking_over if key not in refused or (key in observed and serves(observed[key]))}
    registered, known = (_registered(wanted), wanted.by_key.keys()) if wanted else (NOBODY, NOBODY)
    may_stay = {key for key in observed.keys() - taking_over if key in registered or key not in known}
    if taking_over and not there:
        return may_stay
    missing = min(least, len(taking_over)) - len(there)
    serving = [key for key in may_stay if serves(observed[key])]
    return frozenset(sorted(serving, key=lambda key: (key not in registered, key))[: max(0, missing)])


def serves(real_server: RealServer) -> bool:
    """Tell whether `real_server` gets new connections."""
    return real_server.weight > 0


def serves_in(entry: TableEntry, key: RealServerKey) -> bool:
    """Tell whether real server `key` of `entry` gets new connections."""
    return key in entry.real_servers and serves(entry.real_servers[key])


def _resting(wanted: Wanted) -> AbstractSet[RealServerKey]:
    """Return the real servers that are in maintenance."""
    return {key for key, member in wanted.by_key.items() if member.is_in_maintenance}


def _is_from_elsewhere(entry: LedgerEntry, wanted: Wanted) -> bool:
    """Tell whether what was written came from another Consul service or datacenter than is asked for now."""
    before, config = entry.provenance, wanted.config
    return bool(before.service) and (before.service, before.datacenter) != (config.consul_service, wanted.datacenter)


def _same_instances(entry: LedgerEntry, wanted: Wanted) -> bool:
    """Tell whether what was written came from where `wanted` comes from."""
    before, config = entry.provenance, wanted.config
    source = before.service, before.datacenter, before.filters
    return source == (config.consul_service, wanted.datacenter, filters_of(config))


def _doubtful(
    wanted: Wanted, observed: RealServers, written: RealServers, drained: AbstractSet[RealServerKey]
) -> RealServers:
    """Return what serves and is not registered any more; but what an operator `drained`."""
    return {
        key: each for key, each in _there(observed, written).items() if key not in wanted.by_key and key not in drained
    }


def _serving(
    wanted: Wanted, observed: RealServers, written: RealServers, drained: AbstractSet[RealServerKey]
) -> RealServers:
    """Return what serves and is not wanted to, but for what is rejected and what an operator lets go himself."""
    registered, there = _registered(wanted), _there(observed, written)
    ours = {key: each for key, each in _ours(written).items() if key in registered}
    staying = {key for key, each in wanted.entry.real_servers.items() if serves(each) or key in wanted.weighed.by}
    drained = drained | {key for key, member in wanted.by_key.items() if member.is_drained}
    return {
        key: each
        for key, each in {**ours, **there}.items()
        if (key in registered or key not in wanted.by_key) and key not in staying and key not in drained
    }


def _staying(wanted: Wanted, absent: AbstractSet[RealServerKey]) -> AbstractSet[RealServerKey]:
    """Return what counts of those that are wanted."""
    return counted(wanted, wanted.entry.real_servers) - absent


def _last(wanted: Wanted, observed: RealServers, written: RealServers) -> RealServers:
    """Return what serves where nothing would."""
    if any(serves(real_server) for real_server in wanted.entry.real_servers.values()):
        return {}
    there = _there(observed, written)
    registered = _registered(wanted)
    if wanted.config.fallback is not None:
        registered -= _resting(wanted)  # that is somebody's word, and there is something to take over
    failing = {key: each for key, each in {**_ours(written), **there}.items() if key in registered}
    return failing or {key: each for key, each in there.items() if key not in wanted.by_key}


def _under_the_floor(
    wanted: Wanted, observed: RealServers, written: RealServers, staying: AbstractSet[RealServerKey]
) -> list[RealServerKey]:
    """Return what of ours would leave beside those that stay or come, in the order in which it is to stay."""
    registered = _registered(wanted)
    lost = [
        key
        for key in _ours(written).keys() - staying
        if key in registered or (key in observed and key not in wanted.by_key)
    ]

    def rank(key: RealServerKey) -> tuple[bool, bool, RealServerKey]:
        return key not in registered, key in registered and wanted.by_key[key].is_filtered, key

    return sorted(lost, key=rank)


def _stay(
    wanted: Wanted, observed: RealServers, found: Hold, suspects: RealServers, opinion: Opinion
) -> AbstractSet[RealServerKey]:
    """Return which of `suspects` stay by the `opinion`: the living, and those of whom it is not known yet.

    Of whom nothing can be found out stays what `found` holds. Who is not in the table is not put there unasked. Of
    those in maintenance nobody stays beside one that lives, or where a fallback takes over.
    """
    resting = _resting(wanted)
    serving = {key for key in suspects if key in observed and serves(observed[key])}
    unasked = (opinion.unknowable | (suspects.keys() - serving - opinion.alive)) - found.real_servers.keys()
    staying = suspects.keys() - opinion.dead - unasked
    others = opinion.alive & (staying - resting) or wanted.config.fallback is not None
    return staying - resting if others else staying


def _in_opinion(found: Hold, suspects: RealServers, staying: AbstractSet[RealServerKey]) -> Hold:
    """Return `found` with those `staying` in place of what it holds of `suspects`."""
    real_servers = {key: each for key, each in found.real_servers.items() if key not in suspects}
    more = len(staying) - (len(found.real_servers) - len(real_servers))  # than would be held without it
    real_servers |= {key: suspects[key] for key in staying}
    return attrs.evolve(
        found if real_servers else NO_HOLD,
        real_servers=real_servers,
        suspects=frozenset(suspects),
        by_opinion=frozenset(sorted(staying - found.real_servers.keys())[: max(0, more)]),
    )


def _there(observed: RealServers, written: RealServers) -> RealServers:
    """Return what serves, and what would but for a hand, as we last wrote it."""
    ours = _ours(written)
    return {key: ours.get(key, each) for key, each in observed.items() if serves(each) or key in ours}


def _ours(written: RealServers) -> dict[RealServerKey, RealServer]:
    return {key: each for key, each in written.items() if serves(each)}


def _registered(wanted: Wanted) -> AbstractSet[RealServerKey]:
    """Return what Consul has an instance of that may be in the table."""
    verdicts = [member.verdict for member in wanted.members]
    rejected = {each.key for each in verdicts if isinstance(each, Rejected) and each.reason is not Reason.DUPLICATE}
    return wanted.by_key.keys() - rejected
