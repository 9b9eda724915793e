"""Events in words: short for a row, and as a sentence. The reasons are those of the event, as `cause` wrote them.

Pure. An event that another version of lvsctl wrote is said by its name.
"""

from typing import Final

from lvsctl.core.cause import Kind
from lvsctl.core.event import Event

# As a row says it, and as a sentence does behind what it is about.
WORDS: Final = {
    "virtual_server_added": ("virtual server added", "was added"),
    "virtual_server_changed": ("virtual server changed", "was changed"),
    "virtual_server_deleted": ("virtual server deleted", "was deleted"),
    "real_server_added": ("added", "was added"),
    "real_server_changed": ("changed", "was changed"),
    "real_server_quiesced": ("quiesced", "was quiesced"),
    "real_server_deleted": ("deleted", "was deleted"),
    "virtual_address_added": ("virtual address added", "was added"),
    "virtual_address_removed": ("virtual address removed", "was removed"),
    "hold": ("held", "was held"),
    "fallback": ("the fallback serves", "was left to its fallback"),
    "foreign_in_the_way": ("foreign one in the way", "was left alone"),
    "failed_over": ("failed over", "failed over"),
    "instance_rejected": ("rejected", "was rejected"),
    "instance_damped": ("damped", "was damped"),
    "declaration_refused": ("declaration refused", "was refused what it declares"),
    "ledger_failed": ("ledger not written", "could not be written"),
    "virtual_addresses_failed": ("virtual addresses failed", "could not be moved"),
    "probed": ("probed", "was probed by lvsctl itself"),
    "setting_changed": ("set", "was set"),
    "setting_failed": ("not set", "could not be set"),
    "released": ("released", "was released"),
    "orders_failed": ("orders not read", "could not read the orders it had"),
    "adopted": ("adopted", "was adopted"),
    "disowned": ("disowned", "was disowned"),
    "cycle_failed": ("cycle failed", "could not reconcile"),
    "reloaded": ("reloaded", "read its file again"),
    "reload_refused": ("reload refused", "kept the old configuration"),
    "reload_confirmed": ("reload confirmed", "keeps its configuration"),
    "reload_rolled_back": ("rolled back", "went back to the configuration before"),
    "clock_set": ("the clock was set", "found that the clock was set"),
    "started": ("started", "started"),
    "stopped": ("stopped", "stopped"),
}
OVER: Final = {
    "hold": ("no longer held", "was held no longer"),
    "fallback": ("the fallback is not needed", "had something that serves again"),
    "foreign_in_the_way": ("no foreign one in the way", "had nothing foreign in the way any more"),
    "failed_over": ("failed back", "was served by its first datacenter again"),
    "instance_rejected": ("no longer rejected", "was rejected no longer"),
    "instance_damped": ("no longer damped", "was damped no longer"),
    "declaration_refused": ("declaration no longer refused", "was refused nothing any more"),
    "ledger_failed": ("ledger written again", "could be written again"),
    "virtual_addresses_failed": ("virtual addresses as wanted", "were as wanted again"),
    "setting_failed": ("as wished", "is as wished"),
}
NOT_WRITTEN: Final = {
    "virtual_server_added": "to add it",
    "virtual_server_changed": "to change it",
    "virtual_server_deleted": "to delete it",
    "real_server_added": "to add it",
    "real_server_changed": "to change it",
    "real_server_quiesced": "to quiesce it",
    "real_server_deleted": "to delete it",
}
# What these changed is said by their words alone.
WITHOUT_WHAT: Final = frozenset(
    {
        "virtual_server_deleted",
        "real_server_deleted",
        "trouble_over",
        "override",
        "override_over",
        "order",
        "order_over",
    }
)
REJECTED: Final = "instance_rejected"
OURSELVES: Final = frozenset(
    {
        "started",
        "stopped",
        "reloaded",
        "reload_refused",
        "reload_confirmed",
        "reload_rolled_back",
        "cycle_failed",
        "orders_failed",
        "clock_set",
    }
)
# Causes that Consul's answer alone decides; of the others its index says nothing.
OF_CONSUL: Final = frozenset(
    each.value
    for each in (
        Kind.NEW,
        Kind.RETURNED,
        Kind.CHECK,
        Kind.MAINTENANCE,
        Kind.DEREGISTERED,
        Kind.FILTERED,
        Kind.FAILOVER,
        Kind.REJECTED,
        Kind.WEIGHT,
    )
)


def about(event: Event) -> str:
    """Return what of a virtual server, or of ours, `event` is about: `10.0.0.1:80`, `tcp 10.9.0.100:80`."""
    instance = event.evidence.instance if event.evidence else ""
    if instance and REJECTED in {event.event, event.of}:
        return instance  # where it would be may be another one
    return event.real_server or event.address or instance or event.virtual_server


def done(event: Event) -> str:
    """Return what happened, for a row: `quiesced, weight 1 -> 0`."""
    match event.event:
        case "kernel_refused":
            return f"refused by the kernel {NOT_WRITTEN.get(event.of, event.of)}, {event.what}".rstrip(", ")
        case "trouble_over":
            return OVER.get(event.of, (f"over: {_plain(event.of)}",))[0]
        case "journal_lost":
            return f"{event.lost} events missing"
        case "override" | "order":
            return event.what or event.event
        case "override_over" | "order_over":
            return f"{event.what}: over"
        case "virtual_server_deleted" | "real_server_deleted":  # what it was like before is no change
            return WORDS[event.event][0]
        case name:
            words = WORDS[name][0] if name in WORDS else _plain(name)
            return f"{words}, {event.what}" if event.what else words


def why(event: Event) -> str:
    """Return why it happened, in words; empty where there is nothing to say."""
    index = event.evidence.index if event.evidence and event.cause in OF_CONSUL else 0
    attempt = f"attempt {event.attempt}" if event.attempt > 1 else ""
    by = f"by {event.by}" if event.by else ""
    told = "; ".join(filter(None, (event.error, attempt, by, event.why)))
    return f"{told} (Consul index {index})" if told and index else told


def sentence(event: Event) -> str:
    """Return `10.0.0.1:80 was quiesced (weight 1 -> 0): instance 'reco-1' on node 'app1': …`."""
    subject = "lvsctl" if event.event in OURSELVES else about(event) or event.name or "lvsctl"
    if event.evidence and subject == event.evidence.instance:
        subject = f"instance {subject!r}"
    match event.event:
        case "kernel_refused":
            says = f"was refused by the kernel {NOT_WRITTEN.get(event.of, event.of)}".rstrip()
        case "trouble_over":
            says = OVER.get(event.of, ("", f"was past: {_plain(event.of)}"))[1]
        case "journal_lost":
            subject, says = f"{event.lost} events", "are missing here"
        case "override" | "override_over":
            says = f"{'got' if event.event == 'override' else 'lost'} {event.what}"
        case "order" | "order_over":
            subject, says = f"the {event.what}", "was ordered" if event.event == "order" else "ended"
        case name:
            says = WORDS[name][1] if name in WORDS else f"had the event {name}"
    shown = event.what if event.event not in WITHOUT_WHAT else ""
    reason = why(event)
    return f"{subject} {says}{f' ({shown})' if shown else ''}{f': {reason}' if reason else ''}"


def _plain(name: str) -> str:
    return name.replace("_", " ")
