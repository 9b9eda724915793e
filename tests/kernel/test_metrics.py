"""The metrics endpoint over the real kernel and the real Consul: what happens is there within a second of it.

Promises: a hold is visible within `VISIBLE` (P3), drift is counted (P7), the age of Consul's data is a metric (P13),
liveness never depends on Consul, and readiness is a sync or an adopted table (P14), the token is nowhere (P16).
These stop Consul, so they have a scene of their own.
"""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from lvsctl.core.status import State
from tests.kernel.director import START, Director, tcp
from tests.kernel.writes import wait_until_in_sync
from tests.lab.scene import HTTP, VIP4, scene
from tests.lab.waiting import eventually
from tests.showing import Figure
from tests.test_metrics import value

pytestmark = pytest.mark.kernel

VISIBLE: Final = 1.0  # seconds
RECO: Final = f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\nscheduler = "wrr"\ndrain_timeout = "0s"\n'
THREE: Final = {f"10.2.0.{number}:80": 1 for number in (11, 12, 13)}
LABELS: Final = {"virtual_server": "reco", "address": f"tcp {VIP4}:{HTTP}"}
CANARY: Final = "canary-77ab90"


@pytest.fixture(scope="module")
def own_director() -> Iterator[Director]:
    with scene() as made:
        (made.directory / "token").write_text(CANARY)
        (made.directory / "token").chmod(0o600)
        yield Director(made)


@pytest.fixture
def director(own_director: Director) -> Iterator[Director]:
    """Return a director that serves r1 to r3 and shows it at the usual place."""
    consul = own_director.scene.consul
    assert consul.process is not None
    if not consul.process.running:
        consul.start()
    for each in own_director.scene.real_servers:
        consul.write(each.registration())
    token = f'token_file = "{own_director.scene.directory}/token"\n'
    own_director.write(RECO, head="[metrics]", consul=token)
    if own_director.running:
        own_director.reload()
    else:
        own_director.start()
    own_director.wait_for_weights(tcp(VIP4, HTTP), THREE, within=START)
    settled(own_director)
    yield own_director
    if not consul.process.running:
        consul.start()
    own_director.clean()


def ask(director: Director, path: str) -> tuple[int, bytes]:
    """Return status and body of what is asked on the director's own loopback."""

    def answer() -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:9105{path}", timeout=5) as found:
                return found.status, found.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    return director.host.call(answer)


def scrape(director: Director) -> bytes:
    """Return what Prometheus would get."""
    status, page = ask(director, "/metrics")
    assert status == 200
    assert CANARY.encode() not in page
    return page


def shows(director: Director, name: str, wanted: float, **labels: str) -> bytes:
    """Return the first page on which the series has the value that is `wanted`."""

    def page() -> bytes:
        found = scrape(director)
        assert value(found, name, **labels) == wanted
        return found

    return eventually(page, within=START, every=0.02)


def settled(director: Director) -> float:
    """Return the fingerprint of the table when a cycle has read that it is as wanted."""

    def found() -> float:
        page = scrape(director)
        kernel, wanted = (value(page, "lvsctl_table_fingerprint", of=of) for of in ("kernel", "wanted"))
        assert (kernel, value(page, "lvsctl_in_sync")) == (wanted, 1)
        return kernel

    return eventually(found, within=START)


@pytest.mark.promise(13, case="the age of Consul's data is a metric", target="60 s at most")
def test_transport_age_and_what_serves(director: Director, figure: Figure) -> None:
    page = shows(director, "lvsctl_virtual_server_serving_real_servers", 3, **LABELS)
    assert value(page, "lvsctl_consul_transport_info", transport="HTTP/1.1", why="within-limit") == 1
    age = time.time() - value(page, "lvsctl_consul_last_contact_timestamp_seconds", **LABELS)
    figure(age, "s old")
    assert age < 60
    assert value(page, "lvsctl_in_sync") == 1
    assert value(page, "lvsctl_writes_total", kind="real_server_added") >= 3
    assert ask(director, "/livez") == (200, b"alive\n")
    assert ask(director, "/readyz") == (200, b"ready\n")
    director.ipvsadm("-A", "-f", "9")
    director.reload()
    shows(director, "lvsctl_foreign_virtual_servers", 1)


@pytest.mark.promise(3, case="a hold begins; the metrics are asked", target=f"seen in {VISIBLE:g} s")
def test_a_hold_is_there_within_a_second(director: Director, figure: Figure) -> None:
    before = settled(director)
    for each in director.scene.real_servers:
        director.scene.consul.remove(f"reco-{each.name}")
    page = shows(director, "lvsctl_virtual_servers", 1, state="held")
    seen = time.time()
    engaged = datetime.fromisoformat(director.wait_for_event("hold", name="reco")["timestamp"]).timestamp()
    assert director.status_of("reco").state is State.HELD
    in_status = time.time() - engaged
    figure(seen - engaged, "s until it was in the metrics")
    figure(in_status, "s until it was in the status")
    assert in_status < VISIBLE
    assert director.lvsctl("status").returncode == 1
    print(f"the hold was in the metrics {seen - engaged:.2f} s after it began")
    assert seen - engaged < VISIBLE
    assert value(page, "lvsctl_virtual_server_held_real_servers", **LABELS) >= 1
    held = shows(director, "lvsctl_virtual_server_held_real_servers", 2, **LABELS)  # half of three
    assert value(held, "lvsctl_virtual_server_serving_real_servers", **LABELS) == 2
    assert value(page, "lvsctl_virtual_server_state", **LABELS, state="held") == 1
    assert value(page, "lvsctl_table_fingerprint", of="wanted") != before


@pytest.mark.promise(7, case="one real server removed by hand, then ipvsadm -C", target="1 and 4 repairs counted")
def test_drift_is_counted_and_the_fingerprint_knows_the_table(director: Director, figure: Figure) -> None:
    whole, before = settled(director), value(scrape(director), "lvsctl_drift_repairs_total")
    director.ipvsadm("-d", "-t", f"{VIP4}:{HTTP}", "-r", "10.2.0.12:80")
    shows(director, "lvsctl_drift_repairs_total", before + 1)
    shows(director, "lvsctl_table_fingerprint", whole, of="kernel")
    director.ipvsadm("-C")
    page = shows(director, "lvsctl_drift_repairs_total", before + 1 + 1 + 3)
    figure(int(value(page, "lvsctl_drift_repairs_total") - before), "repairs counted")
    shows(director, "lvsctl_table_fingerprint", whole, of="kernel")
    consul, r3 = director.scene.consul, director.scene.real_servers[2]
    consul.remove(f"reco-{r3.name}")
    shows(director, "lvsctl_virtual_server_serving_real_servers", 2, **LABELS)
    assert settled(director) != whole
    consul.write(r3.registration())
    shows(director, "lvsctl_table_fingerprint", whole, of="kernel")
    assert director.stop() == 0
    director.start()
    wait_until_in_sync(director)
    assert settled(director) == whole
    assert value(scrape(director), "lvsctl_writes_total", kind="real_server_added") == 0


@pytest.mark.promise(14, case="Consul stopped, then a start without it, table populated", target="alive and ready")
def test_without_consul_it_lives_and_a_table_that_stands_makes_it_ready(director: Director, figure: Figure) -> None:
    heard = value(scrape(director), "lvsctl_consul_last_contact_timestamp_seconds", **LABELS)
    director.scene.consul.stop()
    page = shows(director, "lvsctl_consul_reachable", 0)
    assert value(page, "lvsctl_consul_failing_queries") == 1
    assert heard <= value(page, "lvsctl_consul_last_contact_timestamp_seconds", **LABELS) < time.time()
    assert ask(director, "/livez") == (200, b"alive\n")
    assert ask(director, "/readyz") == (200, b"ready\n")
    director.stop()
    director.start()
    eventually(lambda: ask(director, "/readyz") == (200, b"ready\n"), within=START)
    page = shows(director, "lvsctl_virtual_servers", 1, state="waiting")
    assert value(page, "lvsctl_consul_last_contact_timestamp_seconds", **LABELS) == 0
    assert value(page, "lvsctl_virtual_server_serving_real_servers", **LABELS) == 3
    figure(ask(director, "/livez")[0], "from /livez")
    figure(ask(director, "/readyz")[0], "from /readyz without Consul")


@pytest.mark.promise(
    14, case="started without Consul and with an empty table", target="alive, not ready until it syncs"
)
def test_without_consul_and_a_table_it_lives_and_is_not_ready(director: Director, figure: Figure) -> None:
    director.stop()
    director.scene.consul.stop()
    director.forget()
    director.ipvsadm("-C")
    with director.host.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before are in TIME_WAIT
        taken.bind(("127.0.0.1", 9105))
        taken.listen()
        ended = director.lvsctl("run")
    assert (ended.returncode, ended.stdout, director.lines()) == (7, "", [])
    assert ended.stderr == (
        "lvsctl: metrics.listen 127.0.0.1:9105: address already in use; "
        "write an address of this machine and a free port\n"
    )
    director.start()
    status, why = eventually(lambda: ask(director, "/readyz"))
    assert (status, why[:11]) == (503, b"not ready: ")
    nothing = b"not ready: Consul has not answered yet, and the table has no real server\n"
    eventually(lambda: ask(director, "/readyz") == (503, nothing), within=START)
    assert ask(director, "/livez") == (200, b"alive\n")
    figure(ask(director, "/livez")[0], "from /livez")
    figure(ask(director, "/readyz")[0], "from /readyz before Consul")
    director.scene.consul.start()
    eventually(lambda: ask(director, "/readyz") == (200, b"ready\n"), within=START)
    figure(ask(director, "/readyz")[0], "after it")
    shows(director, "lvsctl_virtual_server_serving_real_servers", 3, **LABELS)
    assert CANARY not in director.log


@pytest.mark.promise(
    16, case="a canary token, looked for in arguments, log, pages, commands and files", target="0 hits"
)
def test_the_token_is_nowhere(director: Director, figure: Figure) -> None:
    """In use, through trouble with Consul and a refused file; the file that it is in is the one exception."""
    director.scene.consul.stop()
    shows(director, "lvsctl_consul_reachable", 0)
    director.file.write_text(director.file.read_text("utf-8") + "[", encoding="utf-8")
    director.reload()
    assert director.process is not None
    places = {
        "the daemon's arguments": Path("/proc", str(director.process.pid), "cmdline").read_bytes(),
        "its log": director.log.encode(),
        **{path: ask(director, path)[1] for path in ("/metrics", "/readyz", "/livez", "/", "/nothing")},
    }
    director.write(RECO, head="[metrics]", consul=f'token_file = "{director.scene.directory}/token"\n')
    for command in ("status -o json", "diff", "events", "explain reco", "doctor"):
        answer = director.lvsctl(*command.split())
        assert answer.stdout + answer.stderr
        places[command] = (answer.stdout + answer.stderr).encode()
    files = [path for path in director.state.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 1
    places |= {path.name: path.read_bytes() for path in files}
    hits = {place: text.count(CANARY.encode()) for place, text in places.items()}
    figure(len(hits), "places")
    figure(sum(hits.values()), "hits")
    assert not sum(hits.values()), hits
