"""What a guest is to QEMU and to ssh. Pure; `lab` runs it.

Networks. The management card is QEMU's user network, as Vagrant's NAT is, with port 22 forwarded from a port of the
loopback. Each of the lab's networks is a multicast group on the loopback (`-netdev socket,mcast=`): a hub that carries
whole Ethernet frames, so ARP for direct-route, ICMP and IPIP pass like anything else. Bridges and taps would do that,
too, and are what libvirt makes, but need root, two kernel modules and a network namespace; pairs of sockets
(`-netdev dgram`) join two guests only. A hub sends each frame to all, also to its sender, which costs little at the
lab's rates. The group's address is drawn at random, so that labs of two checkouts do not hear each other.
"""

from pathlib import Path

import attrs

from vagrant.runner.topology import Guest

TRANSLATED = 96  # MB of translated code for each guest; QEMU alone would take up to a gigabyte


@attrs.frozen(kw_only=True)
class Wire:
    """One of the lab's networks as a multicast group on the loopback."""

    network: str
    group: str  # address:port


@attrs.frozen(kw_only=True)
class Files:
    """Where a guest's files lie, in the lab's directory."""

    directory: Path
    guest: str

    @property
    def disk(self) -> Path:
        """Return the disk: what differs from the box."""
        return self.directory / f"{self.guest}.qcow2"

    @property
    def pid(self) -> Path:
        """Return the file with the process id of the guest's QEMU."""
        return self.directory / f"{self.guest}.pid"

    @property
    def console(self) -> Path:
        """Return what the guest wrote to its serial console."""
        return self.directory / f"{self.guest}.console"

    @property
    def provisioned(self) -> Path:
        """Return what its provisioning said."""
        return self.directory / f"{self.guest}.provision.log"


def qemu(guest: Guest, files: Files, wires: tuple[Wire, ...], *, ssh_port: int, accelerator: str) -> tuple[str, ...]:
    """Return the command that starts `guest` in the background; the accelerator is QEMU's word: tcg or kvm."""
    groups = {wire.network: wire.group for wire in wires}
    command = ["qemu-system-x86_64", "-name", guest.name, "-nodefaults", "-display", "none", "-daemonize"]
    command += ["-pidfile", str(files.pid), "-serial", f"file:{_escape(files.console)}"]
    command += ["-machine", "pc,hpet=off", "-m", str(guest.memory), "-smp", "1"]
    memory = f",tb-size={TRANSLATED}" if accelerator == "tcg" else ""
    command += ["-accel", accelerator + memory, "-cpu", "qemu64"]
    command += ["-drive", f"file={_escape(files.disk)},if=virtio,format=qcow2,cache=unsafe,discard=unmap"]
    command += ["-device", "virtio-rng-pci"]
    command += ["-netdev", f"user,id=management,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"]
    command += ["-device", "virtio-net-pci,netdev=management,romfile="]
    for card in guest.cards:
        command += ["-netdev", f"socket,id={card.network},mcast={groups[card.network]},localaddr=127.0.0.1"]
        command += ["-device", f"virtio-net-pci,netdev={card.network},mac={card.mac},romfile="]
    return tuple(command)


def ssh_config(ports: dict[str, int], *, box: Path, sockets: Path) -> str:
    """Return the configuration by which ssh reaches the guests by name.

    A connection stays open for a while, in `sockets`, for to agree on keys takes an emulated processor a second or two.
    """
    guests = (f"Host {name}\n    HostName 127.0.0.1\n    Port {port}\n" for name, port in ports.items())
    options = {
        "User": "vagrant",
        "IdentityFile": _quote(box / "key"),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": _quote(box / "known_hosts"),
        "HostKeyAlias": "lab",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": "10",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "6",
        "LogLevel": "ERROR",
        "ControlMaster": "auto",
        "ControlPersist": "60",
        "ControlPath": _quote(sockets / "%n"),
    }
    return "".join(guests) + "Host *\n" + "".join(f"    {name} {value}\n" for name, value in options.items())


def _escape(path: Path) -> str:
    """Return the path as a value of QEMU's options, in which a comma is doubled."""
    return str(path).replace(",", ",,")


def _quote(path: Path) -> str:
    return f'"{path}"'
