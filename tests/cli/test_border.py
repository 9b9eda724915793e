"""`lvsctl adopt` and `lvsctl disown`: all names or none, said, and in the journal's words."""

from pathlib import Path

import pytest

from lvsctl.cli.border import moved
from lvsctl.config import Config, DaemonConfig
from lvsctl.core.border import adopted, disowned
from lvsctl.core.event import Event
from lvsctl.core.event_words import sentence
from lvsctl.errors import StateError
from lvsctl.store import LEDGER, Store
from netlink.types import VirtualServerKey
from tests.values import KEY, config_of, configured, entry, real, table_of

TABLE = table_of(entry(real(9)), entry(real(9), key=VirtualServerKey.by_mark(7)))


def both(directory: Path) -> Config:
    servers = configured(), configured("shop", VirtualServerKey.by_mark(7))
    return config_of(*servers, daemon=DaemonConfig(state_directory=directory))


def adopt(config: Config, *names: str) -> tuple[int, list[str]]:
    told: list[Event] = []
    code = moved(config, TABLE, names, word="adopted", moving=adopted, tell=told.append)
    return code, [sentence(event).split(": by ")[0] for event in told]


def disown(config: Config, *names: str) -> int:
    return moved(config, TABLE, names, word="disowned", moving=lambda *asked: disowned(*asked[:3]), tell=print)


def test_all_or_none_is_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = both(tmp_path)
    assert adopt(config, "reco", "nobody") == (1, [])
    assert capsys.readouterr().err == (
        "lvsctl: 'nobody' is not in the file: write it there first, as it shall be; nothing was adopted\n"
    )
    assert not (tmp_path / LEDGER).exists()
    assert adopt(config, "reco", "shop") == (0, ["tcp 10.9.0.100:80 was taken over", "mark 7 was taken over"])
    assert capsys.readouterr().out.splitlines() == [
        "adopted reco (tcp 10.9.0.100:80); it stands as it was",
        "adopted shop (mark 7); it stands as it was",
    ]
    assert Store(tmp_path).load_whole().keys() == {KEY, VirtualServerKey.by_mark(7)}
    assert disown(config, "reco") == 1
    assert disown(config_of(configured(), daemon=config.daemon), "shop") == 0
    assert Store(tmp_path).load_whole().keys() == {KEY}


def test_where_it_is_not_known_what_is_ours_nothing_is_moved(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text("{")
    with pytest.raises(StateError, match="it is not known what is ours"):
        adopt(both(tmp_path), "reco")
    assert (tmp_path / LEDGER).read_text() == "{"
