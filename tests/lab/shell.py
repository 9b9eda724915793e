"""`make shell`: leaves a person on the director of the usual scene; `exit` ends all of it."""

import subprocess
import sys
from pathlib import Path

from tests.lab.scene import HTTP, UDP, VIP4, VIP6, Forwarding, Scene, scene

CHEATS = """
You are on the director. Consul's API is at {url}; it has the service reco with {servers}.
The virtual addresses {vip4} and {vip6} are on this host's interface front. Each real server answers
HTTP on port {http} and UDP on port {udp} with its name.

  ipvsadm -Ln                       the table
  {add_virtual}
  {add_real}
  on client curl -s {vip4}     run it on another host: client, consul, {names}
  on r1 bash                        stay there
  consul catalog services           Consul's command, with its address set
  curl -s {url}/v1/health/service/reco
  lvsctl --help
  exit                              end all of it
"""

RC = """
PS1='director:\\w\\$ '
on() {{ local host=$1; shift; ip netns exec "$host" "$@"; }}
consul() {{ CONSUL_HTTP_ADDR={url} {consul} "$@"; }}
"""


def main() -> int:
    """Return 0 when the person left the shell, whatever the last command's status was."""
    forwardings: dict[str, Forwarding] = {each: each for each in ("masquerade", "direct-route", "tunnel")}
    forwarding = forwardings.get(sys.argv[1] if len(sys.argv) > 1 else "masquerade")
    if forwarding is None:
        print(f"shell: one of {', '.join(forwardings)}", file=sys.stderr)
        return 2
    print("lab: making the hosts and starting Consul …", flush=True)
    with scene(forwarding) as made:
        for server in made.real_servers:
            made.consul.register(server.registration())
        made.consul.wait_for_health("reco", {f"reco-{each.name}": "passing" for each in made.real_servers})
        print(_cheats(made), flush=True)
        rc = made.directory / "bashrc"
        rc.write_text(RC.format(url=made.consul.url, consul=made.consul.program), encoding="utf-8")
        with made.director.inside():
            shell = subprocess.Popen(["bash", "--rcfile", str(rc), "-i"], cwd=Path.cwd())
        shell.wait()
    return 0


def _cheats(made: Scene) -> str:
    flag = {"masquerade": "-m", "direct-route": "-g", "tunnel": "-i"}[made.forwarding]
    return CHEATS.format(
        url=made.consul.url,
        servers=", ".join(f"{each.name} ({each.host.ipv4})" for each in made.real_servers),
        names=", ".join(each.name for each in made.real_servers),
        add_virtual=f"ipvsadm -A -t {VIP4}:{HTTP} -s rr",
        add_real=f"ipvsadm -a -t {VIP4}:{HTTP} -r {made.real_servers[0].host.ipv4}:{HTTP} {flag}",
        vip4=VIP4,
        vip6=VIP6,
        http=HTTP,
        udp=UDP,
    )


if __name__ == "__main__":
    sys.exit(main())
