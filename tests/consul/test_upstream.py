"""python-consul2 is there, and what it would ask with is neither loaded nor spoilt."""

import subprocess
import sys

PROGRAM = """
import sys
from lvsctl.consul.upstream import base
assert issubclass(base.Consul, object) and "requests" not in sys.modules, "loaded"
import requests
assert requests.session, "spoilt"
"""


def test_requests_is_not_loaded_and_can_be() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
