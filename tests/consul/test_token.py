"""The token: which file may hold it, when it is read again, and that nothing but its header shows it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lvsctl.config import ConsulConfig, Secret
from lvsctl.consul.token import MAX_FILE, Token
from lvsctl.errors import ConsulError

CANARY = "canary-91d2-token"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "consul.token"
    path.write_text(f"{CANARY}\n")
    path.chmod(0o600)
    return path


def value(token: Token) -> str | None:
    return token.header().get("X-Consul-Token")


def refusal(path: Path, **changes: str) -> str:
    with pytest.raises(ConsulError) as caught:
        Token(ConsulConfig(token_file=path, **changes)).header()  # type: ignore[arg-type]  # any of its keys
    assert caught.value.__cause__ is None
    assert CANARY not in str(caught.value)
    return str(caught.value)


def test_without_a_file_the_token_is_that_of_the_environment_or_anonymous(file: Path) -> None:
    assert Token(ConsulConfig()).header() == {}
    assert value(Token(ConsulConfig(token=Secret("given")))) == "given"
    assert value(Token(ConsulConfig(token=Secret("given"), token_file=file))) == CANARY


def test_a_file_is_read_again_when_it_changes_in_place_or_is_replaced(file: Path) -> None:
    token = Token(ConsulConfig(token_file=file))
    assert value(token) == CANARY
    file.write_text("second")
    assert value(token) == "second"
    file.with_suffix(".new").write_text("third")
    file.with_suffix(".new").replace(file)
    assert value(token) == "third"
    file.unlink()
    with pytest.raises(ConsulError, match="no such file"):
        token.header()
    file.write_text("fourth")
    assert value(token) == "fourth"


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def long(path: Path) -> None:
    path.write_text(" " * MAX_FILE + CANARY)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (pipe, "it is not a regular file"),  # and nobody waits for its writer
        (device, "it is not a regular file"),
        (directory, "is a directory"),
        (long, f"it has more than {MAX_FILE} bytes"),
        (loop, "too many levels of symbolic links"),
        (Path.unlink, "no such file or directory"),
    ],
)
def test_a_file_that_cannot_hold_a_token(file: Path, make: Callable[[Path], None], words: str) -> None:
    make(file)
    assert refusal(file).startswith(f"consul.token_file {file}: {words}; make it a text file with one token")


def test_an_error_names_what_named_the_file(file: Path) -> None:
    file.unlink()
    assert refusal(file, token_name="CONSUL_HTTP_TOKEN_FILE").startswith(f"CONSUL_HTTP_TOKEN_FILE {file}: ")  # noqa: S106  a name


def test_a_link_to_a_file_is_a_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    assert value(Token(ConsulConfig(token_file=tmp_path / "link"))) == CANARY


def test_a_file_that_everybody_may_read_is_a_warning_once_a_change(file: Path) -> None:
    file.chmod(0o644)
    with capture_logs() as logged:
        token = Token(ConsulConfig(token_file=file))
        token.header()
        token.header()
    assert [(each["event"], each["log_level"], each["file"]) for each in logged] == [
        ("token_readable", "warning", str(file))
    ]
    assert CANARY not in str(logged)
    file.chmod(0o640)
    with capture_logs() as logged:
        assert value(token) == CANARY
    assert logged == []


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(CANARY)
    config = ConsulConfig(token=secret)
    for text in (repr(secret), str(secret), f"{secret!s} {secret}", repr(config), str(config)):
        assert CANARY not in text
    assert secret == Secret(CANARY)
