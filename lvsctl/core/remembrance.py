"""What the ledger has to say before the steps of a decision, and after them.

Pure. `store` writes it. Before: what is about to be ours, so that a crash leaves a line about nothing rather than a
virtual server that nobody owns; and what already stands as intended, so that one of ours is still known by it when a
crash comes after the steps that take away the rest. After: what was written, so that the next difference can tell a
hand from a wish.
"""

from collections.abc import Iterable, Sequence

import attrs

from lvsctl.config import Declaration
from lvsctl.core.decision import Decision, Step, VirtualServerDecision
from lvsctl.core.nothing import NOTHING
from lvsctl.core.ownership import Ledger, LedgerEntry, Owner
from lvsctl.core.peak import NO_PEAKS, Peaks
from lvsctl.core.provenance import UNKNOWN, Provenance, filters_of, remembered
from lvsctl.core.ramp import Ramps
from lvsctl.core.served import NEVER, Served
from netlink.requests import AddRealServer, DeleteRealServer, SetRealServer, SetVirtualServer, TableRequest
from netlink.types import Observed, RealServerKey, TableEntry, VirtualServerKey


def ledger_ahead(decision: Decision, ledger: Ledger, observed: Observed) -> Ledger:
    """Return the ledger to write before the steps of `decision`: ours with their drains, as they stood until now.

    What is removed stays in the ledger until the kernel has said so, or has been seen without it.
    """
    kept = {
        key: entry
        for key, entry in ledger.items()
        if key in decision.virtual_servers or key in observed.table or key in decision.left_alone
        if key not in decision.disowned
    }
    for key, each in decision.virtual_servers.items():
        before = ledger.get(key)
        if each.owner is Owner.FOREIGN:
            if each.disowned and not (before and before.disowned):
                kept[key] = LedgerEntry(name=each.name, drain_timeout=each.drain_timeout, disowned=True)
            continue
        if before is not None and before.disowned:
            before = None
        if before is not None and _says_it_all(before, each):
            kept[key] = _kept_once(before, each)
            continue
        kept[key] = LedgerEntry(
            name=each.name,
            drain_timeout=each.drain_timeout,
            written=_written_ahead(each, before.written if before else None),
            draining={server: state.since for server, state in each.leaving.items()} or NOTHING,
            failed_over=_failed_over(each, before),
            peaks=_peaks(each, before),
            served=_served_ahead(each, before),
            declaration=_declaration(each, before),
            provenance=_provenance_ahead(each, before),
            ramps=_ramps_ahead(each, before),
            flapping=each.flapping,
            fallback=_fallback(each, before),
        )
    return kept


def _kept_once(entry: LedgerEntry, each: VirtualServerDecision) -> LedgerEntry:
    """Return `entry`, with the values of `each` where they are the same as those that came from disk."""
    if entry.written is each.intended or entry.written != each.intended:
        return entry
    return attrs.evolve(entry, written=each.intended)


def _says_it_all(entry: LedgerEntry, each: VirtualServerDecision) -> bool:
    """Tell whether `entry` is what there is to remember of a virtual server that stays as it is."""
    quiet = not each.steps and not each.leaving and not entry.draining and entry.written is not None
    if not quiet or entry.peaks != _peaks(each, entry) or entry.served != _served_ahead(each, entry):
        return False
    if not _is_provenance(entry.provenance, each) or (entry.ramps, entry.flapping) != (each.ramps, each.flapping):
        return False
    said = (entry.name, entry.drain_timeout, entry.failed_over, entry.declaration, entry.fallback)
    failed_over, declaration = _failed_over(each, entry), _declaration(each, entry)
    return said == (each.name, each.drain_timeout, failed_over, declaration, _fallback(each, entry))


def _failed_over(each: VirtualServerDecision, before: LedgerEntry | None) -> str:
    """Return the datacenter that serves in place of the first, or did last; empty where the first does."""
    if each.wanted is not None:
        return each.wanted.failed_over
    return before.failed_over if before else ""


def _fallback(each: VirtualServerDecision, before: LedgerEntry | None) -> RealServerKey | None:
    """Return the fallback that serves, or the one that did and is not out yet; none where it was none of ours."""
    if each.fallback is not None or before is None:
        return each.fallback
    return before.fallback if before.fallback in each.leaving else None


def _peaks(each: VirtualServerDecision, before: LedgerEntry | None) -> Peaks:
    if each.wanted is not None:
        return each.wanted.peaks
    return before.peaks if before else NO_PEAKS


def _served_ahead(each: VirtualServerDecision, before: LedgerEntry | None) -> Served:
    """Return the counts until now where steps are about to change them: they may fail."""
    if each.wanted is not None and not each.steps:
        return each.counts.after
    if each.wanted is not None and each.counts.before != NEVER:
        return each.counts.before
    return before.served if before else NEVER


def _ramps_ahead(each: VirtualServerDecision, before: LedgerEntry | None) -> Ramps:
    """Return who ramps, as it was until now where steps are about to change that: it goes with what was written."""
    if before is None or not each.steps:
        return each.ramps
    most = max(before.ramps.most, each.ramps.most)
    return Ramps(of={**each.ramps.of, **before.ramps.of} or NOTHING, times=before.ramps.times, most=most)


def _declaration(each: VirtualServerDecision, before: LedgerEntry | None) -> Declaration | None:
    """Return what counts as declared from now on: of a virtual server on its way out no more than who declared it."""
    if each.wanted is not None:
        return each.wanted.config.declaration
    return attrs.evolve(before.declaration, values=()) if before and before.declaration else None


def _provenance(each: VirtualServerDecision, before: LedgerEntry | None) -> Provenance:
    """Return where what `each` has written comes from, and why what leaves does where that passes."""
    if each.wanted is None:
        return before.provenance if before else UNKNOWN
    left = {key: why for key in (*each.leaving, *each.held) if (why := each.why_gone(key))}
    effects = each.wanted.weighed.effects
    return Provenance(
        service=each.wanted.config.consul_service,
        datacenter=each.wanted.datacenter,
        filters=filters_of(each.wanted.config),
        overrides=remembered(effects) if effects else (),
        left=left or NOTHING,
    )


def _is_provenance(provenance: Provenance, each: VirtualServerDecision) -> bool:
    """Tell whether `provenance` is that of `each`, at once where nothing but its names can differ."""
    if each.wanted is None:
        return True
    plain = not (provenance.overrides or provenance.left or each.wanted.weighed.effects or each.held or each.leaving)
    if plain:
        names = provenance.service, provenance.datacenter, provenance.filters
        return names == (each.wanted.config.consul_service, each.wanted.datacenter, filters_of(each.wanted.config))
    return provenance == _provenance(each, None)


def _provenance_ahead(each: VirtualServerDecision, before: LedgerEntry | None) -> Provenance:
    """Return what to remember before the steps: where what stands came from, which causes are told by.

    Where nothing is known to be written, what is from now on comes from where it is taken now. As long as something
    else is, though no step is needed, that came from where it did: killed now, we would take it for what is asked now.
    """
    after = _provenance(each, before)
    if before is None or before.written is None or _is_as_written(before, each):
        return after
    return attrs.evolve(before.provenance, left=after.left)


def _is_as_written(entry: LedgerEntry, each: VirtualServerDecision) -> bool:
    """Tell whether what stands is as it is to be, and is remembered so."""
    return not each.steps and (entry.written is each.intended or entry.written == each.intended)


def _written_ahead(each: VirtualServerDecision, written: TableEntry | None) -> TableEntry | None:
    """Return what is known before the steps of `each` to be as we leave it: what needs no step, else as `written`.

    The first may be news: a step that nobody wrote down (a crash, a refusal of another one, an outcome that was lost),
    or a hand that changed a virtual server on its way out, whose configuration nobody changes back. Written after the
    steps, it would come too late: killed between them, we would find nothing of what we remember and call it foreign.
    A virtual server that the kernel has lost comes back with its configuration of now, whatever it had. Where weights
    change and somebody is held in proportion to them, all stay as they were until all are set: the next one to look has
    to find the same proportion.
    """
    observed, intended = each.observed, each.intended
    if intended is None or (written is not None and not each.steps):
        return written
    if observed is None:
        return attrs.evolve(written, virtual_server=intended.virtual_server) if written else None
    if intended.virtual_server == observed.virtual_server:
        virtual_server = intended.virtual_server
    elif written is not None:
        virtual_server = written.virtual_server
    else:
        return None
    there = observed.real_servers
    before = written.real_servers if written else {}
    done = {key: real_server for key, real_server in intended.real_servers.items() if there.get(key) == real_server}
    both = (before.keys() & intended.real_servers.keys()) if each.hold.real_servers else ()
    in_proportion = any(before[key].weight != intended.real_servers[key].weight for key in both)
    if in_proportion and written and (virtual_server == observed.virtual_server or done.keys() & before.keys()):
        return attrs.evolve(written, virtual_server=virtual_server)
    undone = (there.keys() | intended.real_servers.keys()) - done.keys()
    remembered = {key: real_server for key, real_server in before.items() if key in undone}
    return TableEntry(virtual_server=virtual_server, real_servers=remembered | done)


def ledger_settled(decision: Decision, ledger: Ledger, undone: Iterable[Step]) -> Ledger:
    """Return `ledger` once the steps of `decision` are done, all but those that are `undone`.

    What was removed is forgotten at once: whoever comes in its place is somebody else.
    """
    failed: dict[VirtualServerKey, list[TableRequest]] = {}
    for step in undone:
        failed.setdefault(step.key, []).append(step.request)
    settled = dict(ledger)
    for key, each in decision.virtual_servers.items():
        if key not in ledger or each.owner is Owner.FOREIGN:
            continue
        if key in failed:
            settled[key] = _settled_in_part(ledger[key], each, failed[key])
        elif each.intended is None:
            del settled[key]
        else:
            settled[key] = _settled(ledger[key], each, each.intended)
    return settled


def _settled_in_part(entry: LedgerEntry, each: VirtualServerDecision, undone: Sequence[TableRequest]) -> LedgerEntry:
    """Return `entry` where `undone` was refused, or waits because something was.

    Where all that leaves has left, what is missing is only not there yet, and it may never be: the kernel may refuse an
    option or a real server for ever. Everything else counts as done all the same, so that a release is one, a new
    source of instances has its floor, and the counts do not stand still.
    """
    keys = {_real_server_of(request) for request in undone}
    optional = any(isinstance(request, SetVirtualServer) for request in undone)
    if each.intended is None or each.wanted is None or len(keys - {None}) + optional < len(undone):
        return entry  # it is still to come, or to go
    if optional and entry.written is None:
        return entry
    before = entry.written.real_servers if entry.written else {}
    written = TableEntry(
        virtual_server=entry.written.virtual_server if optional and entry.written else each.intended.virtual_server,
        real_servers={
            **{key: before[key] for key in before.keys() & keys},
            **{key: value for key, value in each.intended.real_servers.items() if key not in keys},
        },
    )
    entry = attrs.evolve(entry, written=written)
    if keys & each.leaving.keys():
        return entry
    return attrs.evolve(entry, provenance=_provenance(each, entry), served=each.counts.before, ramps=each.ramps)


def _real_server_of(request: TableRequest) -> RealServerKey | None:
    match request:
        case AddRealServer(real_server=real_server) | SetRealServer(real_server=real_server):
            return real_server.key
        case DeleteRealServer(key=key):
            return key
        case _:
            return None


def _settled(entry: LedgerEntry, each: VirtualServerDecision, intended: TableEntry) -> LedgerEntry:
    provenance = entry.provenance if _is_as_written(entry, each) else _provenance(each, entry)
    served = each.counts.whole if each.wanted is not None else entry.served
    same = (entry.written, entry.provenance, entry.served, entry.ramps) == (intended, provenance, served, each.ramps)
    if same and not entry.draining:
        return entry
    there = intended.real_servers
    draining = {key: since for key, since in entry.draining.items() if key in there}
    left = {key: why for key, why in provenance.left.items() if key in there}
    provenance = attrs.evolve(provenance, left=left or NOTHING)
    return attrs.evolve(
        entry,
        written=intended,
        draining=draining or NOTHING,
        provenance=provenance,
        served=served,
        ramps=each.ramps,
        fallback=entry.fallback if entry.fallback in there else None,
    )
