"""What happened to the table, as a value: a line of the journal, of `lvsctl events` and of `lvsctl explain`.

Pure. `announce` makes them of cycles, `event_json` writes and reads their lines, `event_words` says them in words.
Text in here may come from Consul and is unescaped; whoever shows it escapes it. Times are Unix seconds.
"""

import attrs


@attrs.frozen(kw_only=True)
class Evidence:
    """What Consul said that decided it: which answer, and of which instance."""

    service: str
    datacenter: str = ""  # empty: the agent's own
    index: int = 0  # X-Consul-Index of the answer in which it was first so; 0 where that had none
    node: str = ""
    instance: str = ""  # of what the answer lacks, who it was; empty where that is not known
    health: str = ""  # passing, warning, critical, maintenance; empty where it has none, or it is unreadable
    check: str = ""  # the name of the check that decides that; empty where all pass


@attrs.frozen(kw_only=True)
class Event:
    """One thing that happened. What does not apply is empty, 0 or None."""

    time: float
    event: str  # the log's constant name: `real_server_added`
    of: str = ""  # of `kernel_refused` what was tried, of `trouble_over` what is over, by the same names
    name: str = ""  # of the virtual server in the configuration
    virtual_server: str = ""  # its key in words: `tcp 10.9.0.100:80`
    real_server: str = ""  # `10.0.0.1:80`
    address: str = ""  # a virtual address
    what: str = ""  # `weight 1 -> 5`, `masquerade, weight 1`
    cause: str = ""  # core.cause.Kind
    why: str = ""  # the cause in words
    by: str = ""  # who did it, where somebody did
    error: str = ""  # the kernel's reason
    attempt: int = 0  # of `kernel_refused`
    lost: int = 0  # of `journal_lost`: events that are missing before it
    evidence: Evidence | None = None
