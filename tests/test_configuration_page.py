"""docs/configuration.md is what the code says, and what it shows works."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from lvsctl.config import DefaultsTable
from lvsctl.configfile import TABLES, parse

DOCS = Path(__file__).parents[1] / "docs"
KEYS = [(name, field) for name, table in TABLES.items() for field in attrs.fields(table)]

# what an example needs beside itself to make sense
BESIDE = {
    "ca_file": 'address = "https://consul"',
    "certificate_file": 'address = "https://consul"\nkey_file = "/key"',
    "server_name": 'address = "https://consul"',
    "key_file": 'address = "https://consul"\ncertificate_file = "/certificate"',
    "lower_threshold": "upper_threshold = 1000",
    "scheduler_flags": 'scheduler = "sh"',
    "one_packet": 'protocol = "udp"',
    "persistence_netmask": 'persistence = "5m"',
}

ADDRESSES = '["10.9.1.0/24"]'


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    specification = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_is_the_generated_one(generate: ModuleType) -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert page == generate.configuration(), "run: PYTHONPATH=. python docs/generate.py"


def test_the_page_has_a_heading_for_every_key(generate: ModuleType) -> None:
    headings = re.findall(r"^### `(\w+)`$", generate.configuration(), re.MULTILINE)
    inherited = attrs.fields_dict(DefaultsTable).keys()
    expected = [field.name for name, field in KEYS if not (name == "virtual_server" and field.name in inherited)]
    assert headings == expected


def test_every_toml_block_of_the_page_loads() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert [list(parse(block, Path("block")).virtual_servers) for block in blocks] == [
        ["reco", "dns", "search"],
        ["reco"],
    ]


@pytest.mark.parametrize(("table", "field"), KEYS, ids=[f"{table}.{field.name}" for table, field in KEYS])
def test_every_example_loads(table: str, field: Any) -> None:  # noqa: ANN401  an attrs field of any type
    server = '[virtual_server.x]\naddress = "10.9.0.1:80"\n'
    if field.name == "family":
        server = "[virtual_server.x]\nfirewall_mark = 7\n"
    elif field.name in {"address", "firewall_mark"} and table == "virtual_server":
        server = "[virtual_server.x]\n"
    if table == "discovery" and field.name != "addresses":
        server += f"[discovery]\naddresses = {ADDRESSES}\n"
        table = ""
    head = server if table == "virtual_server" else f"{server}[{table}]\n" if table else server
    example = f"{field.name} = {field.metadata['example']}\n"
    parse(head + example + BESIDE.get(field.name, ""), Path("example"))


@pytest.mark.parametrize(("table", "field"), KEYS, ids=[f"{table}.{field.name}" for table, field in KEYS])
def test_every_key_is_documented(table: str, field: Any) -> None:  # noqa: ANN401  the same
    assert field.metadata["doc"].endswith("."), table
    assert field.metadata["type"].between
