"""Everything one cycle decides, as one value.

Pure. `decide` makes it; `reconcile` carries it out, `diff` and `status` show it.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import attrs

from lvsctl.config import Declaration
from lvsctl.core.admission import Limits
from lvsctl.core.cause import BY_HAND, GONE, UNCONFIGURED, UNDECLARED, Cause, cause_of_disappearance
from lvsctl.core.damping import Flapping
from lvsctl.core.desired import Member, Wanted
from lvsctl.core.drain import Drained, Draining
from lvsctl.core.guard import NO_HOLD, Hold
from lvsctl.core.nothing import NOBODY, NOTHING
from lvsctl.core.opinion import Opinion
from lvsctl.core.order import NO_DRAINS, NOT_ORDERED, Drains, Order, Ordered
from lvsctl.core.ownership import LedgerEntry, Owner
from lvsctl.core.provenance import REFILTERED, filters_of, why_unasked
from lvsctl.core.ramp import NO_RAMPS, Ramps
from lvsctl.core.served import NO_COUNTS, Counts
from netlink.requests import TableRequest
from netlink.types import Address, RealServerKey, RealServers, TableEntry, VirtualServerKey


@attrs.frozen(kw_only=True)
class Step:
    """One change to the kernel and why it is made."""

    name: str  # of the virtual server in the configuration
    key: VirtualServerKey
    request: TableRequest
    cause: Cause


@attrs.frozen(kw_only=True)
class VirtualServerDecision:
    """What is to become of one virtual server of ours."""

    name: str
    key: VirtualServerKey
    wanted: Wanted | None  # None: no longer configured
    owner: Owner
    observed: TableEntry | None
    intended: TableEntry | None = None  # what the kernel shall have after the steps; None: nothing
    hold: Hold = NO_HOLD
    counts: Counts = attrs.field(default=NO_COUNTS, eq=False)  # what is over in them is left out when they change
    absent: frozenset[RealServerKey] = NOBODY  # what the kernel refused, so that it does not serve
    opinion: Opinion | None = None  # what the director itself found of some; None where it does not look
    moved_to: VirtualServerKey | None = None  # where the virtual server of this name is wanted, where not here
    ordered: Ordered = NOT_ORDERED  # by operators; where it is paused no step of it is taken
    disowned: bool = False  # foreign by an operator's word
    fallback: RealServerKey | None = None  # serves because nothing else does
    leaving: Mapping[RealServerKey, Draining | Drained] = NOTHING
    leaving_causes: Mapping[RealServerKey, Cause] = NOTHING
    steps: tuple[Step, ...] = ()
    drain_timeout: float = 0.0
    undrained: Mapping[RealServerKey, str] = NOTHING  # not drained when they leave, and why
    # Who was behind what is in the kernel and in no answer any more; what is decided does not depend on it.
    behind: Mapping[RealServerKey, Member] = attrs.field(default=NOTHING, eq=False, repr=False)
    became: Mapping[RealServerKey, str] = attrs.field(default=NOTHING, eq=False, repr=False)  # of those, in words
    ramps: Ramps = NO_RAMPS  # who has a slow start, and how far each is
    flapping: Flapping = NOTHING  # who comes and goes
    let_in: AbstractSet[RealServerKey] = NOBODY  # who was damped until an operator has just said otherwise
    undamped: Wanted | None = None  # what would be wanted, were nobody damped; None where nobody is
    next_look: float | None = attrs.field(default=None, eq=False)  # when it is another one by itself, but for drains
    remembered: LedgerEntry | None = attrs.field(default=None, eq=False, repr=False)  # what the ledger had of it
    overridable: bool = attrs.field(default=True, eq=False, repr=False)  # the configuration opens overrides

    @property
    def held(self) -> RealServers:
        """Return the real servers that stay although they were to go."""
        return self.hold.real_servers

    @property
    def declaration(self) -> Declaration | None:
        """Return what a Consul service declared; None where it is or was in the file."""
        if self.wanted is not None:
            return self.wanted.config.declaration
        return self.remembered.declaration if self.remembered else None

    @property
    def why_unwanted(self) -> str:
        """Return why it has to go, in words that follow `it is`; of what is wanted they mean nothing."""
        if self.moved_to is not None:
            return f"at {self.moved_to} now"
        return UNDECLARED if self.declaration else UNCONFIGURED

    def why_gone(self, key: RealServerKey) -> str:
        """Return why real server `key` is in no answer of Consul, as `cause_of_disappearance` takes it; else empty.

        Consul is not asked any more for what it came from, or a hand put it into the table and it never was in one, or
        its instance is gone or elsewhere. One that is in an answer may be left out since the configuration changed.
        """
        if self.wanted is None:
            return ""
        if key in self.wanted.by_key:
            return self._why_filtered(key, self.wanted)
        if self.remembered is None or self.remembered.disowned:
            return BY_HAND
        before, written = self.remembered.provenance, self.remembered.written
        left = before.left.get(key, "")
        if left and cause_of_disappearance(left).kind not in GONE.values():
            return left
        if written is None or key not in written.real_servers:
            return BY_HAND
        return why_unasked(before, self.wanted.queries) or self.became.get(key) or left

    def _why_filtered(self, key: RealServerKey, wanted: Wanted) -> str:
        """Return that other tags or metadata are asked for since `key` served, where that is why it is left out."""
        if not wanted.by_key[key].is_filtered or self.remembered is None or self.remembered.disowned:
            return ""
        before, written = self.remembered.provenance, self.remembered.written
        if before.left.get(key) == REFILTERED:
            return REFILTERED
        served = written is not None and key in written.real_servers and written.real_servers[key].weight > 0
        others = before.service == wanted.config.consul_service and before.filters != filters_of(wanted.config)
        return REFILTERED if served and others else ""

    @property
    def draining(self) -> Mapping[RealServerKey, Draining]:
        """Return the real servers that stay quiesced for now."""
        return {key: state for key, state in self.leaving.items() if isinstance(state, Draining)}


@attrs.frozen(kw_only=True)
class Decision:
    """What one cycle decided."""

    virtual_servers: Mapping[VirtualServerKey, VirtualServerDecision]
    waiting: frozenset[str]  # configured, but Consul has not answered for them yet: left exactly as they are
    left_alone: frozenset[VirtualServerKey]  # what the ledger has of those, under their key or under their name
    foreign: frozenset[VirtualServerKey]  # in the kernel and not ours
    disowned: frozenset[VirtualServerKey]  # in the ledger, but what stands there now is somebody else's
    addresses: frozenset[Address]  # virtual addresses that virtual servers in the kernel will need
    look_again: float | None  # Unix seconds by which to decide again although nothing changed
    next_end: (
        float | None
    )  # Unix seconds when an override or order is over, a datacenter taken for a smaller one, a floor falls
    paused: Order | None = None  # by whose order nothing at all is written
    limits: Limits = attrs.field(eq=False, repr=False)  # by which instances were judged
    templates_expire: bool = attrs.field(eq=False, repr=False)
    connections_expire: bool = attrs.field(default=False, eq=False, repr=False)
    drains: Drains = attrs.field(default=NO_DRAINS, eq=False, repr=False)  # by which they were, too

    @property
    def steps(self) -> Sequence[Step]:
        """Return all steps, virtual server by virtual server: those that bring come before those that only remove."""
        changing = [each for each in self.virtual_servers.values() if each.steps]
        ordered = sorted(changing, key=lambda each: (each.intended is None, each.key))
        return [step for each in ordered for step in each.steps]
