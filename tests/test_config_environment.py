"""What the file says wins, then systemd's credential, then Consul's variables; each error names its variable."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.cli.check import command
from lvsctl.config import ConsulConfig
from lvsctl.config_environment import Environment, current
from lvsctl.configfile import load, parse
from lvsctl.errors import ConfigError, Problem

FILE = Path("lvsctl.toml")
SERVER = '[virtual_server.reco]\naddress = "10.9.0.100:80"\n'
CANARY = "canary-77aa01fe"
HTTPS = {"CONSUL_HTTP_ADDR": "https://consul:8501"}
VARIABLES = (
    "CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN_FILE", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_SSL", "CONSUL_HTTP_SSL_VERIFY",
    "CONSUL_CACERT", "CONSUL_CAPATH", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY", "CONSUL_TLS_SERVER_NAME",
    "CREDENTIALS_DIRECTORY",
)  # fmt: skip


def completed(written: str = "", *, credential: str = "", **variables: str) -> ConsulConfig:
    environment = Environment(variables=variables, has_credential=bool(credential))
    return parse(f"[consul]\n{written}\n{SERVER}", FILE, environment).consul


def error(written: str = "", *, credential: str = "", **variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        completed(written, credential=credential, **variables)
    return str(caught.value)


# --- what counts ----------------------------------------------------------------------------------------------------


def test_without_variables_the_file_and_the_defaults_count() -> None:
    assert completed() == ConsulConfig()
    assert completed(**dict.fromkeys(VARIABLES, "")) == ConsulConfig(), "an empty one is not set"


def test_every_variable_counts_where_the_file_is_silent() -> None:
    found = completed(
        CONSUL_HTTP_ADDR="consul:8443",
        CONSUL_HTTP_SSL="true",
        CONSUL_HTTP_SSL_VERIFY="1",
        CONSUL_HTTP_TOKEN=CANARY,
        CONSUL_CACERT="/ca",
        CONSUL_CLIENT_CERT="/c",
        CONSUL_CLIENT_KEY="/k",
        CONSUL_TLS_SERVER_NAME="server.dc1.consul",
    )
    assert found.token is not None
    assert found.token.reveal == CANARY
    assert (found.address, found.server_name) == ("https://consul:8443", "server.dc1.consul")
    assert (found.ca_file, found.certificate_file, found.key_file) == (Path("/ca"), Path("/c"), Path("/k"))
    assert set(found.from_environment) == {
        "CONSUL_HTTP_ADDR", "CONSUL_HTTP_SSL", "CONSUL_HTTP_SSL_VERIFY", "CONSUL_HTTP_TOKEN", "CONSUL_CACERT",
        "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY", "CONSUL_TLS_SERVER_NAME",
    }  # fmt: skip
    assert CANARY not in repr(found)


def test_what_the_file_says_wins_and_the_variable_is_not_even_read() -> None:
    written = """
address = "https://here"
token_file = "/t"
ca_file = "/ca"
certificate_file = "/c"
key_file = "/k"
server_name = "me"
"""
    hostile = dict.fromkeys(set(VARIABLES) - {"CONSUL_HTTP_SSL_VERIFY"}, "\x1b no good")
    found = completed(written, credential="there", **hostile)
    assert found == completed(written)
    assert found.from_environment == ()


@pytest.mark.parametrize(
    ("address", "tls", "expected"),
    [
        ("10.0.0.1", "", "http://10.0.0.1:8500"),
        ("[fd00::1]:80", "", "http://[fd00::1]:80"),
        ("http://consul", "false", "http://consul:8500"),
        ("http://consul", "true", "https://consul:8501"),  # as Consul's own: asked for once is asked for
        ("HTTP://consul", "1", "https://consul:8501"),
        ("https://consul", "0", "https://consul:8501"),
        ("consul", "T", "https://consul:8501"),
        ("unix:///run/consul.sock", "true", "unix:///run/consul.sock"),
        ("", "true", "https://127.0.0.1:8501"),
        ("", "", "http://127.0.0.1:8500"),
    ],
)
def test_the_address_is_read_as_consul_reads_it(address: str, tls: str, expected: str) -> None:
    assert completed(CONSUL_HTTP_ADDR=address, CONSUL_HTTP_SSL=tls).address == expected


def test_the_order_of_tokens() -> None:
    every = {
        "CREDENTIALS_DIRECTORY": "/run/credentials/lvsctl.service",
        "CONSUL_HTTP_TOKEN_FILE": "/from-environment",
        "CONSUL_HTTP_TOKEN": CANARY,
    }
    first = completed('token_file = "/t"', credential="there", **every)
    assert (first.token_file, first.token, first.token_name) == (Path("/t"), None, "consul.token_file")
    second = completed(credential="there", **every)
    assert second.token_file == Path("/run/credentials/lvsctl.service/consul.token")
    assert (second.token, second.token_name) == (None, "credential consul.token")
    assert second.from_environment == ("credential consul.token",)
    third = completed(**every)
    assert (third.token_file, third.token) == (Path("/from-environment"), None)
    assert third.token_name == "CONSUL_HTTP_TOKEN_FILE"  # noqa: S105  a name
    fourth = completed(CONSUL_HTTP_TOKEN=CANARY)
    assert fourth.token_file is None
    assert fourth.token is not None


def test_variables_of_tls_count_with_https_only() -> None:
    nonsense = {
        name: "no good" for name in VARIABLES if name.startswith(("CONSUL_C", "CONSUL_TLS", "CONSUL_HTTP_SSL_"))
    }
    assert completed(**nonsense) == ConsulConfig()
    assert completed('address = "https://h"', CONSUL_CAPATH="/d").ca_directory == Path("/d")
    both = completed('address = "https://h"', CONSUL_CAPATH="/d", CONSUL_CACERT="/ca")
    assert (both.ca_file, both.ca_directory) == (Path("/ca"), None)


def test_keys_of_tls_may_go_with_an_address_of_the_environment() -> None:
    assert completed('ca_file = "/ca"', **HTTPS).ca_file == Path("/ca")
    assert "consul.ca_file: address is http, which uses no certificates" in error('ca_file = "/ca"')
    assert "uses no certificates" not in error('ca_file = "/ca"', CONSUL_HTTP_ADDR="https://h/path")


def test_a_certificate_and_its_key_come_from_one_place() -> None:
    words = error('certificate_file = "/c"', **HTTPS, CONSUL_CLIENT_KEY="/k")
    assert "certificate_file without key_file" in words


# --- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"CONSUL_HTTP_ADDR": "ftp://h"},
            'environment: CONSUL_HTTP_ADDR: "ftp://h" is not http, https or unix; write "http://127.0.0.1:8500", ',
        ),
        ({"CONSUL_HTTP_ADDR": "h\x1b[31m"}, r'"http://h\u001b[31m" has spaces or control characters'),
        ({"CONSUL_HTTP_ADDR": "h\udcff"}, r'"http://h\udcff" has spaces or control characters'),
        ({"CONSUL_HTTP_ADDR": f"http://me:{CANARY}@h"}, "CONSUL_HTTP_ADDR: "),
        ({"CONSUL_HTTP_SSL": "yes"}, 'CONSUL_HTTP_SSL: "yes" is neither true nor false; write true or false'),
        ({**HTTPS, "CONSUL_HTTP_SSL_VERIFY": "false"}, 'CONSUL_HTTP_SSL_VERIFY: "false" would let anybody pass'),
        ({**HTTPS, "CONSUL_HTTP_SSL_VERIFY": "0"}, "name Consul's authority in CONSUL_CACERT or consul.ca_file"),
        ({**HTTPS, "CONSUL_HTTP_SSL_VERIFY": "no"}, 'CONSUL_HTTP_SSL_VERIFY: "no" is neither true nor false'),
        ({"CONSUL_HTTP_TOKEN": f"{CANARY} {CANARY}"}, "CONSUL_HTTP_TOKEN: it does not hold exactly one token"),
        ({"CONSUL_HTTP_TOKEN": f"{CANARY}\r\nX-A: b"}, "CONSUL_HTTP_TOKEN: it does not hold exactly one token"),
        ({"CONSUL_HTTP_TOKEN": f"{CANARY}\udcff"}, "printable ASCII characters without spaces"),
        ({"CONSUL_HTTP_TOKEN": CANARY * 1000}, "CONSUL_HTTP_TOKEN: it does not hold exactly one token"),
        ({"CONSUL_HTTP_TOKEN_FILE": CANARY}, "CONSUL_HTTP_TOKEN_FILE: what is written is not an absolute path"),
        ({**HTTPS, "CONSUL_CACERT": "ca.pem"}, 'CONSUL_CACERT: "ca.pem" is not an absolute path'),
        ({**HTTPS, "CONSUL_CAPATH": "ca"}, 'CONSUL_CAPATH: "ca" is not an absolute path'),
        ({**HTTPS, "CONSUL_CLIENT_CERT": "/c"}, "CONSUL_CLIENT_CERT: it is set without CONSUL_CLIENT_KEY"),
        ({**HTTPS, "CONSUL_CLIENT_KEY": "/k"}, "CONSUL_CLIENT_KEY: it is set without CONSUL_CLIENT_CERT"),
        ({**HTTPS, "CONSUL_CLIENT_CERT": "c", "CONSUL_CLIENT_KEY": "/k"}, "CONSUL_CLIENT_CERT: "),
        ({**HTTPS, "CONSUL_TLS_SERVER_NAME": "a b"}, 'CONSUL_TLS_SERVER_NAME: "a b" cannot be used here'),
    ],
)
def test_an_error_names_the_variable_and_the_remedy_and_shows_no_token(variables: dict[str, str], words: str) -> None:
    found = error(**variables)
    assert words in found
    assert found.startswith("environment: ")
    assert len(found.splitlines()) == 1, "one mistake is told once"
    assert CANARY not in found
    assert found.isprintable()


def test_a_directory_of_credentials_that_is_none_is_an_error() -> None:
    assert "CREDENTIALS_DIRECTORY: " in error(credential="there", CREDENTIALS_DIRECTORY="relative")


def test_a_token_written_in_the_place_of_its_file_is_not_repeated() -> None:
    found = error(f'token_file = "{CANARY}"')
    assert "consul.token_file: what is written is not an absolute path" in found
    assert CANARY not in found


def judged(text: str, environment: Environment) -> tuple[tuple[Problem, ...], ConsulConfig]:
    try:
        return (), parse(text, FILE, environment).consul
    except ConfigError as error:
        return error.problems, ConsulConfig()


@given(
    variables=st.dictionaries(st.sampled_from(VARIABLES), st.text(max_size=12) | st.sampled_from(["true", "/a", "h"])),
    credential=st.booleans(),
    https=st.booleans(),
)
def test_any_values_are_a_configuration_or_an_error(variables: dict[str, str], credential: bool, https: bool) -> None:  # noqa: FBT001  drawn
    environment = Environment(variables=variables, has_credential=credential)
    problems, found = judged(('[consul]\naddress = "https://h"\n' if https else "") + SERVER, environment)
    assert all(each.key in variables and each.remedy and each.at(FILE).isprintable() for each in problems)
    assert bool(found.certificate_file) == bool(found.key_file)
    assert not (found.token and found.token_file)


# --- the process ----------------------------------------------------------------------------------------------------


def test_a_file_is_read_in_the_environment_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lvsctl.toml"
    path.write_text(SERVER)
    assert load(path).consul == ConsulConfig()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", CANARY)
    assert load(path).consul.token is not None, "other credentials than ours are none"
    (tmp_path / "consul.token").write_text("x")
    assert load(path).consul.token_file == tmp_path / "consul.token"
    assert CANARY not in repr(current())


def test_check_says_which_variables_it_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lvsctl.toml"
    path.write_text(SERVER)
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", CANARY)
    monkeypatch.setenv("CONSUL_CACERT", "/ca")
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == [f"{path}: [consul] is completed from the environment: CONSUL_HTTP_TOKEN"]
    monkeypatch.setenv("CONSUL_HTTP_SSL", "maybe")
    result = CliRunner().invoke(command, [str(path)])
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith('environment: CONSUL_HTTP_SSL: "maybe" is neither true nor false')
