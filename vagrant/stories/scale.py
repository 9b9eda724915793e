"""one more instance, at any port, and one less: nobody notices.

Scaling out is a program and a stanza for the Consul agent beside it. Scaling in is the same backwards, with a drain
first: what is asked of an instance is answered before it goes.
"""

from vagrant.stories import guests
from vagrant.stories.lab import Lab
from vagrant.stories.load import summary, wait
from vagrant.stories.topology import having

SERVICE = "reco"
NEW, PORT = "reco-extra", 33999
COPY = (
    "sed -e 's/{like}/{new}/g' -e 's/{port}/{new_port}/g' /etc/lab/instances/{like}.env >/etc/lab/instances/{new}.env"
    " && systemctl start lab-app@{new}"
)
STANZA = (
    "sed -e 's/{like}/{new}/g' -e 's/{port}/{new_port}/g' /etc/lab/consul.d/{like}.hcl >/etc/lab/consul.d/{new}.hcl"
    " && systemctl reload consul"
)
GONE = (
    f"rm -f /etc/lab/consul.d/{NEW}.hcl && systemctl reload consul"
    f" && systemctl stop lab-app@{NEW} && rm -f /etc/lab/instances/{NEW}.env"
)


def run(lab: Lab) -> None:
    """Scale out, then in."""
    node = having(lab.profile, "application")[0]
    like = next(each for each in lab.instances(SERVICE) if each["guest"] == node)
    names = {"like": like["id"], "port": like["port"], "new": NEW, "new_port": PORT}
    director = lab.active()
    address = (lab.profile["guests"][node]["back"], PORT)
    try:
        with lab.traffic(SERVICE) as load:
            lab.do(node, COPY.format(**names))
            wait(
                f"{NEW} answers",
                lambda: guests.run(node, f"curl -fsS {address[0]}:{PORT}/health", check=False).returncode == 0,
            )
            lab.do(node, STANZA.format(**names))
            took = wait(
                f"{NEW} serves", lambda: all(lab.weights(each, SERVICE).get(address, 0) > 0 for each in lab.directors)
            )
            lab.say(f"{NEW} is in the table of {' and '.join(lab.directors)} {took:.0f} s after its stanza")
            lab.do(director, f"lvsctl status {SERVICE}", check=False)
            wait(f"{NEW} answers the client", lambda: load.shares()[NEW] > 3, 60)

            lab.do(director, f"lvsctl drain {node}/{NEW} --fleet --reason 'scaling in' --wait")
            mark = load.mark()
            lab.do(node, GONE)
            lab.do(director, f"lvsctl undrain {node}/{NEW} --fleet")
            wait("20 more answers", lambda: load.mark() >= mark + 20, 60)
            late = load.shares(mark)[NEW]
        lab.say(summary(load.since()))
        lab.expect(late <= 1, f"{NEW} still answered {late} requests after its drain")
        lab.expect(not load.failed(), f"{len(load.failed())} requests failed")
        lab.expect(lab.serving(SERVICE), f"{SERVICE} is not as it was: {lab.weights(director, SERVICE)}")
    finally:
        guests.run(node, f"systemctl kill -s KILL lab-app@{NEW}; {GONE}", check=False)
        guests.run(director, f"lvsctl undrain {node}/{NEW} --fleet", check=False)
