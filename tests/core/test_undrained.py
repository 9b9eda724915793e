"""Who is deleted at once: only who fails, and only where draining would leave its clients without an answer."""

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import OnCritical, VirtualServerConfig
from lvsctl.core.instance import Health, Instance
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.undrained import why_undrained
from netlink.requests import DeleteRealServer, Request, SetRealServer
from netlink.types import Protocol, SchedulerFlag, VirtualServerKey
from tests import strategies
from tests.strategies import KEYS
from tests.values import KEY, VIP, config_of, configured, decided, entry, failing, instance, observed_of, real, real_key

UDP = VirtualServerKey.by_address(Protocol.UDP, VIP, 53)
FALLBACK = SchedulerFlag.FLAG_1
PORT = SchedulerFlag.FLAG_2
STAYS = "clients that keep their source port would stay with it"


def why(config: VirtualServerConfig, *, templates_expire: bool = False, connections_expire: bool = False) -> str:
    return why_undrained(config, templates_expire=templates_expire, connections_expire=connections_expire)


@pytest.mark.parametrize(
    ("config", "at_0", "at_1"),
    [
        (configured(), "", ""),
        (configured(key=UDP), "", STAYS),
        (configured(key=UDP, one_packet=True), "", ""),
        (configured(key=VirtualServerKey.by_mark(7)), "", ""),
        (configured(key=UDP, persistence=300), "persistence would keep its clients", STAYS),
        (configured(key=UDP, on_critical=OnCritical.DELETE), 'on_critical is "delete"', 'on_critical is "delete"'),
        (configured(scheduler="sh", scheduler_flags=FALLBACK), "", ""),
        (configured(scheduler="mh", scheduler_flags=FALLBACK | PORT), "", ""),
        (configured(scheduler="sh", scheduler_flags=PORT), *["sh would refuse its clients"] * 2),
        (configured(scheduler="mh"), *["mh would refuse its clients"] * 2),
        (configured(scheduler="dh"), *["dh would refuse its clients"] * 2),
        (configured(scheduler="dh", scheduler_flags=FALLBACK), *["dh would refuse its clients"] * 2),
    ],
)
def test_the_rules_at_both_settings_of_the_kernel(config: VirtualServerConfig, at_0: str, at_1: str) -> None:
    assert why(config) == at_0
    assert why(config, templates_expire=True, connections_expire=True) == at_1


@given(
    config=st.sampled_from(KEYS).flatmap(lambda key: strategies.configured("reco", key)),
    templates_expire=st.booleans(),
    connections_expire=st.booleans(),
)
def test_a_setting_at_1_changes_nothing_but_what_it_is_about(
    config: VirtualServerConfig, *, templates_expire: bool, connections_expire: bool
) -> None:
    plain = attrs.evolve(config, persistence=None)
    assert why(plain, templates_expire=True, connections_expire=connections_expire) == why(
        plain, templates_expire=False, connections_expire=connections_expire
    )
    if config.key.protocol is not Protocol.UDP or config.one_packet:
        assert why(config, templates_expire=templates_expire, connections_expire=True) == why(
            config, templates_expire=templates_expire, connections_expire=False
        )
    if config.on_critical is OnCritical.DELETE:
        assert why(config, templates_expire=templates_expire, connections_expire=connections_expire)


CRITICAL, MAINTENANCE = failing(2), failing(2, Health.MAINTENANCE)
WITH = {"scheduler": "sh", "scheduler_flags": FALLBACK}
WITHOUT = {"scheduler": "sh", "scheduler_flags": SchedulerFlag.NONE}
DELETED = "deleted"
QUIESCED = "quiesced"


@pytest.mark.parametrize(
    ("key", "options", "connections_expire", "leaving", "becomes"),
    [
        (UDP, {}, True, CRITICAL, DELETED),
        (UDP, {}, False, CRITICAL, QUIESCED),
        (UDP, {}, True, MAINTENANCE, QUIESCED),
        (UDP, {}, True, None, QUIESCED),
        (UDP, {"one_packet": True}, True, CRITICAL, QUIESCED),
        (KEY, WITHOUT, False, CRITICAL, DELETED),
        (KEY, WITHOUT, True, MAINTENANCE, QUIESCED),
        (KEY, WITHOUT, True, None, QUIESCED),
        (KEY, WITH, True, CRITICAL, QUIESCED),
    ],
)
def test_who_leaves_on_purpose_is_drained_whatever_becomes_of_who_fails(
    key: VirtualServerKey,
    options: dict[str, Any],
    leaving: Instance | None,
    becomes: str,
    *,
    connections_expire: bool,
) -> None:
    served = entry(real(1), real(2), key=key, **{"scheduler": "wlc", **options})
    config = config_of(configured(key=key, **{"scheduler": "wlc", **options}))
    decision = decided(
        observed_of(served, connections={real_key(2): 3}),
        instance(1),
        *([leaving] if leaving else []),
        config=config,
        ledger={key: LedgerEntry(name="reco", drain_timeout=30.0, written=served)},
        connections_expire=connections_expire,
    )
    expected: dict[str, Request] = {
        DELETED: DeleteRealServer(virtual_server=key, key=real_key(2)),
        QUIESCED: SetRealServer(virtual_server=key, real_server=real(2, 0)),
    }
    assert [step.request for step in decision.steps] == [expected[becomes]]
    assert decision.steps[0].cause.text.startswith("not drained, ") is (becomes == DELETED)
