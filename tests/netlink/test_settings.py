"""The kernel's settings: a number, none, or an error that names the setting."""

from pathlib import Path

import pytest

from netlink import settings
from netlink.errors import NetlinkError, Unavailable
from netlink.ipvs import IPVS


@pytest.mark.parametrize(("content", "number"), [("0\n", 0), ("1\n", 1), ("-1", -1), ("4096\n", 4096)])
def test_a_setting_is_a_number(tmp_path: Path, content: str, number: int) -> None:
    (tmp_path / "sync_threshold").write_text(content)
    assert settings.read("sync_threshold", tmp_path) == number


def test_a_setting_that_the_kernel_does_not_have_is_none(tmp_path: Path) -> None:
    assert settings.read("expire_quiescent_template", tmp_path) is None
    assert settings.read("expire_quiescent_template", tmp_path / "no_ipvs") is None


@pytest.mark.parametrize("name", ["", "..", "../ip_forward", "a/b", "A", "a\n", "a b", "\0"])
def test_a_name_stays_in_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a name of lower-case letters, digits and _"):
        settings.read(name, tmp_path)


@pytest.mark.parametrize("content", [b"", b"3\t50\n", b"0x1", b"\xff"])
def test_what_is_no_number_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sync_threshold").write_bytes(content)
    with pytest.raises(NetlinkError, match="read setting sync_threshold: it is no number"):
        settings.read("sync_threshold", tmp_path)


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "conn_reuse_mode").mkdir()
    with pytest.raises(NetlinkError, match="read setting conn_reuse_mode: is a directory"):
        settings.read("conn_reuse_mode", tmp_path)


@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_setting_is_set_and_no_other(tmp_path: Path, number: int) -> None:
    (tmp_path / "conntrack").write_text("7\n")
    (tmp_path / "sloppy_tcp").write_text("7\n")
    settings.write("conntrack", number, tmp_path)
    assert (settings.read("conntrack", tmp_path), (tmp_path / "sloppy_tcp").read_text()) == (number, "7\n")


def test_a_setting_that_the_kernel_does_not_have_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NetlinkError, match="set setting conntrack: this kernel has no such setting"):
        settings.write("conntrack", 1, tmp_path)
    with pytest.raises(ValueError, match="is not a name"):
        settings.write("../conntrack", 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_set_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "conntrack").mkdir()
    with pytest.raises(NetlinkError, match="set setting conntrack: is a directory"):
        settings.write("conntrack", 1, tmp_path)
    (tmp_path / "sloppy_tcp").symlink_to("/dev/null")
    with pytest.raises(NetlinkError, match="setting sloppy_tcp: it is no number"):
        settings.write("sloppy_tcp", 1, tmp_path)


@pytest.mark.kernel
def test_the_kernel_takes_what_is_set(kernel: IPVS) -> None:
    assert kernel.observe().table == {}
    before = settings.read("conn_reuse_mode")
    assert before is not None
    try:
        for number in (2, 0, before):
            settings.write("conn_reuse_mode", number)
            assert settings.read("conn_reuse_mode") == number
    finally:
        settings.write("conn_reuse_mode", before)


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["expire_quiescent_template", "expire_nodest_conn"])
def test_the_kernel_has_the_settings_that_matter(kernel: IPVS, name: str) -> None:
    assert kernel.observe().table == {}, "IPVS is there, and its settings with it"
    before = settings.read(name)
    assert before in (0, 1)
    try:
        for number in (1, 0):
            (settings.DIRECTORY / name).write_text(str(number))
            assert settings.read(name) == number
    finally:
        (settings.DIRECTORY / name).write_text(str(before))


@pytest.mark.kernel
def test_the_kernel_lacks_a_setting_that_there_is_not(kernel: IPVS) -> None:
    assert kernel.observe().table == {}
    assert settings.read("no_such_setting") is None


def test_a_namespace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(Unavailable, match=r"enter network namespace no-such: .*`ip netns list` shows the names"):
        settings.read("conntrack", namespace="no-such")
