#!/usr/bin/python3 -IS
"""Writes what one guest needs from the topology: its addresses, its Consul, its instances, its lvsctl.toml.

    render.py TOPOLOGY.json PROFILE NAME DIRECTORY

`files` is pure and returns path and text; the scripts by role put them in place. On the standard library alone, for
guests have no PyYAML: share.sh makes the JSON from topology.yaml.
"""

import ipaddress
import json
import pathlib
import sys
from typing import Any

DRAIN_TIMEOUT = "10s"
VIA_LO = "direct-route"
VIA_TUNNEL = "tunnel"

Description = dict[str, Any]  # a part of the topology, as JSON has it


def mac(address: str) -> str:
    """Return the MAC address of the card that has `address`: 52:54:00 and the last three bytes."""
    return "52:54:00:" + ipaddress.IPv4Address(address).packed[1:].hex(":")


def files(topology: Description, profile_name: str, name: str) -> dict[str, str]:
    """Return {path: text} of guest `name`; raises KeyError where it, or the profile, is not in the topology."""
    profile = topology["profiles"][profile_name]
    guest = profile["guests"][name]
    made = {"guest.env": guest_environment(topology, profile_name, name), "hosts": hosts(profile)}
    made["network.env"] = network(topology, profile, name)
    if "back" in guest:
        made["consul.d/agent.json"] = agent(profile, name)
    for instance in instances_of(profile, name):
        if instance["registered"] == "file":
            made[f"consul.d/{instance['id']}.hcl"] = stanza(guest, instance)
        if "application" in guest["roles"]:
            made[f"instances/{instance['id']}.env"] = program(profile, name, instance)
    if "director" in guest["roles"]:
        made["lvsctl.toml"] = lvsctl(topology, profile)
        if profile["virtual_addresses"] == "failover":
            made["addresses"] = addresses(profile)
    if "access" in guest["roles"]:
        made["nginx.conf"] = nginx(profile, name)
    return made


def instances_of(profile: Description, name: str) -> list[Description]:
    """Return the instances on guest `name`."""
    return [each for each in profile["instances"] if each["guest"] == name]


def shell(values: Description) -> str:
    """Return lines that a shell can source."""
    return "".join(f"{key}='{value}'\n" for key, value in values.items())


def guest_environment(topology: Description, profile_name: str, name: str) -> str:
    """Return what the scripts ask: who this is, what it does."""
    profile = topology["profiles"][profile_name]
    guest = profile["guests"][name]
    first = min(each for each, one in profile["guests"].items() if "director" in one["roles"])
    values = {"PROFILE": profile_name, "NAME": name, "ROLES": " ".join(guest["roles"])}
    values["FRONT"], values["BACK"] = guest.get("front", ""), guest.get("back", "")
    values["ACTIVE"] = "yes" if name == first else ""
    values["VIRTUAL_ADDRESSES"] = profile["virtual_addresses"]
    return shell(values)


def hosts(profile: Description) -> str:
    """Return lines of /etc/hosts; the back address is the one by which guests name each other."""
    lines = [f"{one.get('back') or one['front']} {name}\n" for name, one in profile["guests"].items()]
    return "# the lab\n" + "".join(lines)


def network(topology: Description, profile: Description, name: str) -> str:
    """Return what lab-network sets up."""
    guest = profile["guests"][name]
    servers = profile["virtual_servers"]
    mine = {each["service"] for each in instances_of(profile, name)}
    by = {
        way: " ".join(sorted({servers[each]["vip"] for each in mine if servers[each]["forwarding"] == way}))
        for way in (VIA_LO, VIA_TUNNEL)
    }
    masqueraded = any(servers[each]["forwarding"] == "masquerade" for each in mine)
    values: Description = {which.upper(): guest.get(which, "") for which in ("front", "back")}
    values |= {f"{which.upper()}_MAC": mac(guest[which]) if which in guest else "" for which in ("front", "back")}
    values["BACK_NETWORK"] = topology["networks"]["back"]
    values["GATEWAY"] = profile["gateway"] if masqueraded else ""
    values["DIRECT"], values["TUNNEL"] = by[VIA_LO], by[VIA_TUNNEL]
    values["ARP_IGNORE"] = 0 if "director" in guest["roles"] else 1
    values["FORWARD"] = 1 if "director" in guest["roles"] else 0
    return shell(values)


def agent(profile: Description, name: str) -> str:
    """Return the configuration of the guest's Consul agent."""
    guest = profile["guests"][name]
    servers = [one for one in profile["guests"].values() if "consul-server" in one["roles"]]
    values = {
        "node_name": name,
        "datacenter": "lab",
        "data_dir": "/var/lib/lab-consul",
        "bind_addr": guest["back"],  # on VirtualBox every guest's first card has the same address
        "client_addr": "127.0.0.1",
        "retry_join": [one["back"] for one in servers],
        "retry_interval": "5s",
        "leave_on_terminate": False,  # a restart of the agent takes no instance out of the catalogue
        "skip_leave_on_interrupt": True,
        "disable_update_check": True,
    }
    if "consul-server" in guest["roles"]:
        values |= {"server": True, "bootstrap_expect": len(servers)}
    return json.dumps(values, indent=2) + "\n"


def check(guest: Description, instance: Description) -> str:
    """Return how Consul looks at an instance: a stanza's lines."""
    where = f"{guest['back']}:{instance['port']}"
    return f'http     = "http://{where}/health"' if instance["check"] == "http" else f'tcp      = "{where}"'


def stanza(guest: Description, instance: Description) -> str:
    """Return a file of the Consul agent's that registers an instance, as small teams write it."""
    return f"""\
service {{
  id      = "{instance["id"]}"
  name    = "{instance["service"]}"
  address = "{guest["back"]}"
  port    = {instance["port"]}
  tags    = ["{instance["version"]}"]
  meta    = {{ version = "{instance["version"]}" }}

  check {{
    {check(guest, instance)}
    interval = "10s"
    timeout  = "8s"
  }}
}}
"""


def program(profile: Description, name: str, instance: Description) -> str:
    """Return the environment of an instance's program."""
    values: Description = {"INSTANCE": instance["id"], "SERVICE": instance["service"], "NODE": name}
    values["ADDRESS"], values["PORT"] = profile["guests"][name]["back"], instance["port"]
    values["PROTOCOL"] = profile["virtual_servers"][instance["service"]]["protocol"]
    values["VERSION"], values["REGISTERED"] = instance["version"], instance["registered"]
    return "".join(f"{key}={value}\n" for key, value in values.items())


def lvsctl(topology: Description, profile: Description) -> str:
    """Return /etc/lvsctl/lvsctl.toml, the same on every director."""
    text = f"""\
# Written by the lab from topology.yaml.

[consul]
address = "http://127.0.0.1:8500"

[safety]
allowed_networks = ["{topology["networks"]["back"]}"]

[overrides]
kv_prefix = "lvsctl"

[daemon]
audit_interval = "5s"

[kernel]
expire_nodest_conn = true
expire_quiescent_template = true

[metrics]

[defaults]
drain_timeout = "{DRAIN_TIMEOUT}"
"""
    if profile["virtual_addresses"] == "lvsctl":
        text += '\n[vip]\ninterface = "lvs0"\n'
    for name, server in profile["virtual_servers"].items():
        text += f'\n[virtual_server.{name}]\naddress = "{server["vip"]}:{server["port"]}"\n'
        text += f'protocol = "{server["protocol"]}"\n' if server["protocol"] != "tcp" else ""
        text += f'forwarding = "{server["forwarding"]}"\nscheduler = "{server["scheduler"]}"\n'
    return text


def addresses(profile: Description) -> str:
    """Return which addresses the active director of two has, by card: the gateway last."""
    vips = sorted({each["vip"] for each in profile["virtual_servers"].values()})
    return "".join(f"front {each}\n" for each in vips) + f"back {profile['gateway']}\n"


def nginx(profile: Description, name: str) -> str:
    """Return the site of an access node: a client of the virtual servers, which it names by address for good."""
    mine = next(each for each in instances_of(profile, name) if each["service"] == "web")
    who = {"service": "web", "instance": mine["id"], "node": name, "port": mine["port"], "version": mine["version"]}
    text = f"""\
# Written by the lab from topology.yaml; it changes when a virtual server moves, not when instances come and go.
server {{
    listen {mine["port"]} default_server;
    add_header X-Access-Node {name} always;
    access_log off;
    proxy_connect_timeout 5s;
    proxy_next_upstream off;

    location = /health {{ return 200 "ok\\n"; }}
    location = / {{ default_type application/json; return 200 '{json.dumps(who)}\\n'; }}
"""
    for service, server in profile["virtual_servers"].items():
        if service != "web" and server["protocol"] == "tcp":
            text += f"    location /{service}/ {{ proxy_pass http://{server['vip']}:{server['port']}/; }}\n"
    return text + "}\n"


def main(source: str, profile: str, name: str, directory: str) -> int | str:
    """Write the files of a guest below `directory`."""
    topology = json.loads(pathlib.Path(source).read_text(encoding="utf-8"))
    try:
        made = files(topology, profile, name)
    except KeyError as error:
        return f"render: {source} has no {error} that profile {profile!r} and guest {name!r} need"
    for path, text in made.items():
        target = pathlib.Path(directory, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
