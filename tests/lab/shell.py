"""`make shell`: leaves a person on the director of the usual scene; `exit` ends all of it."""

import subprocess
import sys
from pathlib import Path

from tests.lab.demo import CONFIGURATION
from tests.lab.scene import HTTP, UDP, VIP4, VIP6, Forwarding, Scene, scene

CHEATS = """
You are on the director. Consul's API is at {url}; it has the service reco with {servers}.
The virtual addresses {vip4} and {vip6} are on this host's interface front. Each real server answers
HTTP on port {http} and UDP on port {udp} with its name.

  lvsctl diff                       what would be done; the file is $LVSCTL_CONFIG
  lvsctl run >run.log 2>&1 &        the daemon
  lvsctl status reco
  ipvsadm -Ln                       the kernel's own word
  on client curl -s {vip4}     run it on another host: client, consul, {names}
  on r1 bash                        stay there
  consul maint -enable -service=reco-r1 -reason=lab    Consul's command; and watch it leave
  curl -s {url}/v1/health/service/reco
  exit                              end all of it
"""

RC = """
export LVSCTL_CONFIG={file}
cd {directory}
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
        file = made.directory / "lvsctl.toml"
        forwarding_line = f'scheduler = "wrr"\nforwarding = "{forwarding}"'
        text = CONFIGURATION.format(consul=made.consul.url, vip=VIP4).replace('tags = ["v1"]\n', "")
        file.write_text(text.replace('scheduler = "wrr"', forwarding_line), encoding="utf-8")
        rc = made.directory / "bashrc"
        rc.write_text(
            RC.format(url=made.consul.url, consul=made.consul.program, file=file, directory=made.directory),
            encoding="utf-8",
        )
        with made.director.inside():
            shell = subprocess.Popen(["bash", "--rcfile", str(rc), "-i"], cwd=Path.cwd())
        shell.wait()
    return 0


def _cheats(made: Scene) -> str:
    return CHEATS.format(
        url=made.consul.url,
        servers=", ".join(f"{each.name} ({each.host.ipv4})" for each in made.real_servers),
        names=", ".join(each.name for each in made.real_servers),
        vip4=VIP4,
        vip6=VIP6,
        http=HTTP,
        udp=UDP,
    )


if __name__ == "__main__":
    sys.exit(main())
