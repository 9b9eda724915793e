"""The IPVS client: requests in batches, dumps of the table, errors that say what to do.

Shell: `codec` knows the bytes, `channel` the socket. Nothing is retried but reading.

Dumps are not snapshots. The kernel fills one datagram under its lock and lets writers in between two of them, and it
does not say so (no NLM_F_DUMP_INTR): an entry may be left out or come twice. So:

- a dump of real servers that came in one datagram is true; one that came in several is taken until two in a row agree;
- virtual servers are dumped before and after all their real servers; both dumps must have the same virtual servers.

Otherwise everything is read again, a few times, then Interrupted. What this cannot see is a virtual server deleted and
created again between the two dumps, whose real servers were read in between as none: a reader who finds something
absent looks a second time before writing. Source: net/netlink/af_netlink.c, net/netfilter/ipvs/ip_vs_ctl.c.
"""

import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from netlink import codec
from netlink.channel import BATCH, Channel, Disturbed
from netlink.errors import Interrupted, Refused, Unavailable
from netlink.requests import Request, refusal
from netlink.types import (
    Info,
    Observed,
    RealServer,
    RealServerKey,
    RealServerUsage,
    TableEntry,
    Traffic,
    VirtualServer,
    VirtualServerKey,
)

_ATTEMPTS: Final = 5

_MODPROBE_SECONDS: Final = 30.0


class IPVS:
    """The IPVS table of this network namespace. Blocks; not safe for two threads at once.

    The constructor opens the socket, finds the family (loading ip_vs once where it is missing) and asks for the
    version, so that a missing module or permission is Unavailable here and not later. `timeout` is seconds of silence
    from the kernel after which an answer counts as lost.
    """

    def __init__(self, *, timeout: float = 5.0) -> None:
        self._channel = Channel(timeout=timeout)
        try:
            self._family = self._find_family()
            self.info()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the socket."""
        self.close()

    def info(self) -> Info:
        """Return the version and connection table size of the kernel's IPVS."""
        answer = self._channel.ask("read IPVS information", self._family, codec.GET_INFO, codec.VERSION)
        return codec.decode_info(answer)

    def observe(self) -> Observed:
        """Return the whole table with its counters; an empty table is a table.

        Raises Interrupted when writers disturbed every attempt, Malformed, Unavailable or Refused otherwise.
        """
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                return self._observe_once()
            except Disturbed as disturbed:
                reason = str(disturbed)
        raise Interrupted("read", "the IPVS table", f"others kept changing it in {_ATTEMPTS} attempts: {reason}")

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Send `requests` in order; return one result each, None where the kernel did it.

        A refused request does not stop those after it. Nothing is retried. ENOBUFS as a result means that the answer
        was lost and the request may have taken effect. Raises ValueError, before anything is sent, for a request that
        no kernel should get, and NetlinkError when the kernel fell silent: then observe again.
        """
        encoded = [codec.encode_request(request) for request in requests]
        numbers: list[int] = []
        for start in range(0, len(requests), BATCH):
            batch = encoded[start : start + BATCH]
            what = str(requests[start]) + (f" and {len(batch) - 1} more" if len(batch) > 1 else "")
            numbers += self._channel.batch(what, self._family, codec.VERSION, batch)
        return [refusal(request, number) if number else None for request, number in zip(requests, numbers, strict=True)]

    # ---- reading

    def _observe_once(self) -> Observed:
        before = self._dump_virtual_servers()
        real_servers = {key: self._dump_real_servers(key) for key in before}
        after = self._dump_virtual_servers()
        if before.keys() != after.keys():
            raise Disturbed("virtual servers came or went")
        return Observed(
            table={
                key: TableEntry(
                    virtual_server=virtual_server,
                    real_servers={real_server.key: real_server for real_server, _ in real_servers[key].values()},
                )
                for key, (virtual_server, _) in after.items()
            },
            traffic={key: traffic for key, (_, traffic) in after.items()},
            usage={
                key: {real_server.key: usage for real_server, usage in dumped.values()}
                for key, dumped in real_servers.items()
            },
        )

    def _dump_virtual_servers(self) -> dict[VirtualServerKey, tuple[VirtualServer, Traffic]]:
        request = (self._family, codec.GET_SERVICE, codec.VERSION, b"")
        dumped, _ = self._channel.dump("read virtual servers", "", request, codec.decode_virtual_server)
        found = {virtual_server.key: (virtual_server, traffic) for virtual_server, traffic in dumped}
        if len(found) != len(dumped):
            raise Disturbed("a virtual server was listed twice")
        return found

    def _dump_real_servers(self, key: VirtualServerKey) -> dict[RealServerKey, tuple[RealServer, RealServerUsage]]:
        previous: dict[RealServerKey, tuple[RealServer, RealServerUsage]] | None = None
        request = (self._family, codec.GET_DEST, codec.VERSION, codec.encode_key(key))
        for _ in range(_ATTEMPTS):
            operation = "read real servers of"
            dumped, datagrams = self._channel.dump(operation, str(key), request, codec.decode_real_server)
            found = {real_server.key: (real_server, usage) for real_server, usage in dumped}
            whole = len(found) == len(dumped)
            if whole and (datagrams <= 1 or (previous is not None and previous.keys() == found.keys())):
                return found
            previous = found if whole else None
        raise Disturbed(f"real servers of {key} came or went")

    # ---- opening

    def _find_family(self) -> int:
        """Return the number of the family IPVS; load ip_vs once where the kernel does not know it."""
        try:
            return self._ask_family()
        except Refused as refused:
            if refused.errno != errno.ENOENT:
                raise
        said = _load_module()
        try:
            return self._ask_family()
        except Refused as refused:
            reason = (
                f"the kernel has no IPVS and `modprobe ip_vs` did not help ({said}); "
                "install or build the ip_vs module for this kernel, and load it"
            )
            raise Unavailable("open", "IPVS", reason) from refused

    def _ask_family(self) -> int:
        body = codec.encode_family_name()
        answer = self._channel.ask("look up", codec.CONTROL_FAMILY, codec.GET_FAMILY, 1, body)
        return codec.decode_family(answer)


def _load_module() -> str:
    """Run `modprobe ip_vs`; return what it said, in one line."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    program = shutil.which("modprobe", path=path)
    if program is None:
        return "there is no modprobe"
    try:
        done = subprocess.run(  # noqa: S603 -- a fixed command line
            [program, "ip_vs"], capture_output=True, text=True, timeout=_MODPROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return " ".join(done.stderr.split()) or f"it exited with {done.returncode}"
