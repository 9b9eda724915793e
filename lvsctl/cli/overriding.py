"""What `lvsctl weight` asks Consul, writes there, and shows; imported when it is called, for all of it is heavy.

What an override will do is computed by the code that the daemons run, from what Consul says now.
"""

import asyncio
import contextlib
import os
import pwd
import shlex
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Final

import attrs
import click

from lvsctl.cli import live
from lvsctl.cli.columns import clock, columns, count, span
from lvsctl.config import Config
from lvsctl.consul import overrides as kv
from lvsctl.consul.client import Client
from lvsctl.consul.once import ask_once
from lvsctl.consul.override_keys import folder_of, key_of, unwritable
from lvsctl.core.desired import Wanted, desired, limits_of, queries_of
from lvsctl.core.discovery import discover
from lvsctl.core.instance import Answer, Answers, Query
from lvsctl.core.override import MAX_WORDS, Fixed, Override, Overrides, standing
from lvsctl.core.weighing import Effect, Outcome, unfit
from lvsctl.errors import ConsulError, StateError
from lvsctl.store import Store
from lvsctl.text import listed, visible

NOTHING: Final = "-"


def author() -> str:
    """Return who asks, as far as the environment says: the user behind sudo before the user."""
    user = next((os.environ[name] for name in ("SUDO_USER", "USER", "LOGNAME") if os.environ.get(name)), None)
    if user is None:
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = f"uid {os.getuid()}"
    return visible(f"{user}@{socket.gethostname()}", MAX_WORDS)


def with_declared(config: Config, *, needed: bool = True) -> Config:
    """Return `config` with the virtual servers that Consul services declare now.

    Raises ConsulError or StateError where they cannot be known; without them where they are not `needed`: what is in
    Consul's KV can be cleared whatever else Consul says.
    """
    if config.discovery is None:
        return config
    try:
        asked = live.ask(config)
        ledger = Store(config.daemon.state_directory).load(set_aside_damage=False)
    except (ConsulError, StateError):
        if needed:
            raise
        return config
    return discover(config, asked.candidates, asked.answers, ledger, own_addresses=frozenset(), before=None).config


# --- showing --------------------------------------------------------------------------------------------------------


def listing(config: Config, prefix: str, name: str | None) -> list[str]:
    """Return the screen with the overrides of one virtual server, or of all."""

    async def ask() -> tuple[Overrides, Answers]:
        async with _client(config) as client:
            _, known = await kv.read(client, prefix)
            named = {each.virtual_server for each in known.entries if name in (None, each.virtual_server)}
            if name is not None and name not in named:
                _demand(config, prefix, known, name)
            return known, await _answers(config, client, named)

    known, answers = asyncio.run(ask())
    return render(config, known, answers, time.time(), name)


def render(config: Config, known: Overrides, answers: Answers, now: float, name: str | None = None) -> list[str]:
    """Return a row for each override, also for those that are over; then the keys that are none."""
    rows = [
        [
            each.virtual_server,
            each.selector,
            str(each.share),
            "cleared" if each.until is None else clock(each.until, now),
            each.by or NOTHING,
            _effect_words(config, known, answers, each, now),
            each.reason,
        ]
        for each in sorted(known.entries, key=lambda each: (each.virtual_server, each.created))
        if name in (None, each.virtual_server)
    ]
    head = ["VIRTUAL SERVER", "SELECTOR", "SHARE", "UNTIL", "BY", "EFFECT", "REASON"]
    table = columns([head, *rows], right=frozenset({2}), whole=frozenset({5}))
    lines = table if rows else [f"no overrides{f' of {name}' if name else ''}"]
    left = [each for each in known.entries if name in (None, each.virtual_server)]
    clear = [
        f"  lvsctl weight {each.virtual_server} {shlex.quote(each.selector)} --clear"
        for each in sorted(left, key=lambda each: (each.virtual_server, each.created))
        if each.virtual_server not in config.virtual_servers
    ]
    if clear:
        lines += ["", "not in this file; unless another director has it, cleared by:", *map(visible, clear)]
    ignored = [each for each in known.ignored if name is None or f"/weights/{name}/" in each.key]
    if ignored:
        lines += ["", "not used (consul kv delete KEY removes one):"]
        lines += columns([[f"  {each.key}", each.why] for each in ignored], whole=frozenset({0}))
    return lines


def _effect_words(config: Config, known: Overrides, answers: Answers, override: Override, now: float) -> str:
    if override.until is not None and override.until <= now:
        return "over"
    if override.virtual_server not in config.virtual_servers:
        return "not in this file"
    wanted = _wanted(config, answers, known.entries, override.virtual_server, now)
    if wanted is None:
        return "Consul does not answer"
    effect = _effect(wanted, override)
    if effect.outcome not in (Outcome.EFFECTIVE, Outcome.ALONE):
        return f"none: {effect.why_not}"
    size = f"{effect.matching} of {count(len(wanted.weighed.weights), 'instance')}"
    line = f"{size}, weight {_between(effect.smallest, effect.largest)}"
    return f"{line}: {effect.why_not}" if effect.why_not else line


# --- writing --------------------------------------------------------------------------------------------------------


def write(config: Config, prefix: str, override: Override, *, ahead: bool) -> list[str]:
    """Write `override` in the place of the one that is there, and return what it does.

    Raises click.UsageError for one that would do nothing or not what it says, unless it is written `ahead` of its
    instances; ConsulError when Consul does not take it, or somebody else changed it at the same time.
    """
    name = override.virtual_server
    why = unfit(override.share, config.virtual_servers[name].scheduler)
    if why:
        raise click.UsageError(
            f"{name}: {override.share} cannot work: {why}; wrr and wlc can do it, and 0 always works"
        )

    if unread := unwritable(override, prefix):
        raise click.UsageError(f"{name}: no director could read this override: {unread}; nothing was written")

    async def ask() -> tuple[Wanted | None, list[Override]]:
        now = time.time()
        async with _client(config) as client:
            _, known = await kv.read(client, prefix)
            before, new = _in_its_place(prefix, known, override)
            others = [each for each in known.entries if each != before]
            answers = await _answers(config, client, [name])
            entries = sorted([*others, new], key=lambda each: (each.created, each.virtual_server, each.selector))
            wanted = _wanted(config, answers, entries, name, now)
            _refuse_nonsense(wanted, new, ahead=ahead)
            if not await kv.write(client, prefix, new, modified=new.modified):
                raise await _was_changed(client, prefix, new)
            over = [each for each in others if each.virtual_server == name and each.until and each.until <= now]
            for each in over:
                await kv.clear(client, prefix, each, modified=each.modified)
            return wanted, over

    wanted, over = asyncio.run(ask())
    cleared = [visible(f"{name}: {each.selector} {each.share} was over, and is cleared") for each in over]
    others = [
        visible(f"{name}: {each.override.selector} {each.override.share} does not get what it says: {each.why_not}")
        for each in (wanted.weighed.effects if wanted else ())
        if each.why_not and each.override.selector != override.selector
    ]
    return [visible(_done(override, wanted, time.time())), *others, *cleared]


def clear(config: Config, prefix: str, name: str, selector: str) -> list[str]:
    """Remove an override and return what is left; raises click.UsageError where there is none."""

    async def ask() -> tuple[Override | None, Wanted | None]:
        async with _client(config) as client:
            _, known = await kv.read(client, prefix)
            place = Override(virtual_server=name, selector=selector, share=Fixed(0))
            before, found = _in_its_place(prefix, known, place)
            if found.modified == 0:
                _demand(config, prefix, known, name)
                raise _no_such(known, place)
            if not await kv.clear(client, prefix, found, modified=found.modified):
                raise await _was_changed(client, prefix, found)
            left = [each for each in known.entries if each != before]
            if name not in config.virtual_servers:
                return before, None
            return before, _wanted(config, await _answers(config, client, [name]), left, name, time.time())

    before, wanted = asyncio.run(ask())
    was = f"it was {before.share}{f' of {before.by}' if before.by else ''}" if before else "it was not used"
    if name not in config.virtual_servers:
        return [visible(f"{name}: {selector} is cleared ({was}); {name} is not in this file")]
    left = len(wanted.weighed.effects) if wanted else 0
    then = f"{count(left, 'override')} of {name} left" if left else "every instance has its own weight"
    return [visible(f"{name}: {selector} is cleared ({was}); {then}")]


def _done(override: Override, wanted: Wanted | None, now: float) -> str:
    """Return the one line that says what was written and what it does."""
    until = "until it is cleared"
    if override.until is not None:
        until = f"until {clock(override.until, now)} ({span(override.until - (override.written or now))})"
    head = f"{override.virtual_server}: {override.selector} gets {override.share} {until}"
    effect = _effect(wanted, override) if wanted else None
    if wanted is None or effect is None or not effect.matching:
        return f"{head}; nothing matches yet"
    weights = wanted.weighed.weights
    size = f"{effect.matching} of {count(len(weights), 'instance')}"
    if effect.outcome is Outcome.QUIESCED:
        named = f"{override.virtual_server}: {override.selector} {override.share}"
        return f"{named} is written {until} and does nothing now: {size}, weight 0, for {effect.why_not}"
    line = f"{head}; {size}, weight {_between(effect.smallest, effect.largest)}"
    its = {key for key, each in wanted.weighed.by.items() if each.selector == override.selector}
    others = [weight for key, weight in weights.items() if key not in its]
    if effect.why_not:
        return f"{line}: {effect.why_not}"
    return f"{line}, the others {_between(min(others), max(others))}" if others else line


def _refuse_nonsense(wanted: Wanted | None, override: Override, *, ahead: bool) -> None:
    name = override.virtual_server
    if wanted is None:
        if not ahead:
            raise click.UsageError(
                f"Consul does not answer for {name}, so nobody knows what it does; --ahead writes it"
            )
        return
    effect = _effect(wanted, override)
    if effect.outcome in (Outcome.UNFIT, Outcome.TOO_MUCH, Outcome.EMPTYING):
        raise click.UsageError(f"{name}: {override.share} cannot work: {effect.why_not}")
    if effect.outcome is Outcome.QUIESCED and not ahead:
        raise click.UsageError(
            f"{name}: {override.share} would do nothing: {effect.why_not}; register another one (Consul's Weights, or "
            "weight_meta), or --ahead writes it for then"
        )
    if effect.outcome is Outcome.NOBODY and not ahead:
        if not wanted.weighed.weights:
            why = "Consul lists no instance that may serve, or the token may not read them"
            raise click.UsageError(f"{name}: {why}; --ahead writes it for instances to come")
        number = count(len(wanted.weighed.weights), "instance")
        raise click.UsageError(
            f"{name}: '{visible(override.selector)}' is no tag or metadata of the {number} that may serve, or an older "
            "override has them; --ahead writes it for instances to come"
        )


def _in_its_place(prefix: str, known: Overrides, override: Override) -> tuple[Override | None, Override]:
    """Return the override at the key of `override` now, and `override` as it will count there."""
    place = (override.virtual_server, override.selector)
    before = next((each for each in known.entries if (each.virtual_server, each.selector) == place), None)
    if before is not None:
        return before, attrs.evolve(override, created=before.created, modified=before.modified)
    unusable = next((each.modified for each in known.ignored if each.key == key_of(prefix, *place)), 0)
    last = max((each.created for each in known.entries), default=0)
    return None, attrs.evolve(override, created=last + 1, modified=unusable)


async def _was_changed(client: Client, prefix: str, override: Override) -> ConsulError:
    """Return the error that says what somebody else wrote meanwhile."""
    _, known = await kv.read(client, prefix)
    now, _ = _in_its_place(prefix, known, override)
    state = f"it is {now.share}{f' of {now.by}' if now.by else ''} now" if now else "it is cleared now"
    return ConsulError(
        f"{override.virtual_server}: {override.selector} was changed by somebody else at the same time, {state}; "
        "nothing was written, look and try again"
    )


def _demand(config: Config, prefix: str, known: Overrides, name: str) -> None:
    """Raise click.UsageError for a name that neither the file nor any key below `prefix` has."""
    there = config.virtual_servers.keys() | {each.virtual_server for each in known.entries}
    unusable = any(each.key.startswith(f"{folder_of(prefix)}{name}/") for each in known.ignored)
    if name not in there and not unusable:
        raise unknown(name, there)


def unknown(name: str, there: Iterable[str]) -> click.UsageError:
    """Return the error for a name that is none of those that are `there`."""
    return click.UsageError(f"no virtual server '{visible(name)}'; there are: {listed(there, name)}")


def _no_such(known: Overrides, override: Override) -> click.UsageError:
    there = [visible(each.selector) for each in known.entries if each.virtual_server == override.virtual_server]
    said = f"there are: {', '.join(there)}" if there else "it has none"
    return click.UsageError(f"{override.virtual_server} has no override of '{visible(override.selector)}'; {said}")


# --- asking ---------------------------------------------------------------------------------------------------------


def _client(config: Config) -> Client:
    return Client(config.consul, max_instances=config.safety.max_instances)


async def _answers(config: Config, client: Client, names: Iterable[str]) -> Answers:
    """Return Consul's answers for these virtual servers, without those that it does not give."""
    chosen = {each: config.virtual_servers[each] for each in names if each in config.virtual_servers}
    found: dict[Query, Answer] = {}
    for query in sorted(queries_of(attrs.evolve(config, virtual_servers=chosen))):
        with contextlib.suppress(ConsulError):
            found |= dict(await ask_once(client, [query]))
    return found


def _wanted(config: Config, answers: Answers, entries: Sequence[Override], name: str, now: float) -> Wanted | None:
    """Return what these overrides make of a virtual server; None where Consul did not answer for it."""
    alone = attrs.evolve(config, virtual_servers={name: config.virtual_servers[name]})
    stand = standing(Overrides(entries=tuple(entries)), now)
    try:  # where the ledger is another director's, the first datacenter that can is taken for the one that serves
        ledger = Store(config.daemon.state_directory).load(set_aside_damage=False)
    except StateError:
        ledger = {}
    failed_over = {key: entry.failed_over for key, entry in ledger.items() if entry.failed_over}
    peaks = {key: entry.peaks for key, entry in ledger.items() if entry.peaks}
    limits = limits_of(config, frozenset())
    return desired(alone, answers, limits, None, stand, failed_over=failed_over, peaks=peaks, now=now).get(name)


def _effect(wanted: Wanted, override: Override) -> Effect:
    return next(each for each in wanted.weighed.effects if each.override.selector == override.selector)


def _between(smallest: int, largest: int) -> str:
    return str(smallest) if smallest == largest else f"{smallest} to {largest}"
