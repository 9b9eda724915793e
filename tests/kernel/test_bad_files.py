"""Files that are no configuration, given to a daemon that serves: each is refused, and nothing changes."""

import sys
from typing import Final

import pytest

from tests.kernel.director import Director, tcp
from tests.kernel.writes import writes
from tests.lab.consul import Registration
from tests.lab.scene import HTTP, VIP4
from tests.lab.traffic import Traffic
from tests.showing import Figure

pytestmark = [pytest.mark.kernel, pytest.mark.soak]

RECO: Final = '[virtual_server.reco]\naddress = "10.1.0.100:80"\n'
BAD: Final = {  # what is in place of the virtual servers; None: there is no file
    "missing": None,
    "empty": "",
    "bad TOML": "[virtual_server.reco",
    "unknown key": RECO + "wieght = 3\n",
    "one address twice": RECO + RECO.replace(".reco]", ".other]"),
    "no virtual server": "[defaults]\nscheduler = 'rr'\n",
    "binary": "\0\1\2",
}


@pytest.mark.promise(
    19,
    case="missing, empty, not TOML, an unknown key, an address twice, nothing left, binary: reload and check",
    target="0 writes, 0 failed, each refused with exit code 3",
)
def test_no_bad_file_replaces_a_good_one(director: Director, figure: Figure) -> None:
    address = director.scene.real_servers[0].host.ipv4
    director.register(Registration(service="reco", id="reco-r1", address=address, port=HTTP))
    director.configure(f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\n')
    director.wait_for_weights(tcp(VIP4, director.port), {f"{address}:{HTTP}": 1})
    good, before, written = director.file.read_text("utf-8"), director.lines(), len(writes(director))
    refused = 0
    with Traffic(director.scene.client, VIP4, director.port, rate=20) as traffic:
        for name, text in BAD.items():
            said = len(director.events("reload_refused"))
            if text is None:
                director.file.unlink()
            elif name == "empty":
                director.file.write_text("", encoding="utf-8")
            else:
                director.write(text)
            director.reload()
            problems = director.events("reload_refused")[said:]
            assert problems, name
            assert all(each["problem"].startswith(str(director.file)) for each in problems), problems
            checked = director.host.run(
                [sys.executable, "-m", "lvsctl", "check", str(director.file)], check=False, within=60
            )
            assert (checked.returncode, checked.stdout) == (3, ""), name
            assert str(director.file) in checked.stderr
            assert director.lines() == before, name
            refused += 1
        report = traffic.stop()
    figure(refused, "files refused with exit code 3")
    figure(len(writes(director)) - written, "writes")
    figure.traffic(report)
    assert len(writes(director)) == written
    assert not report.failures, report
    director.file.write_text(good, encoding="utf-8")
    director.reload()
    assert director.status().config_error == ""
