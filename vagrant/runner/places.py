"""Where the runner keeps what it makes, all of it under build/vagrant."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
VAGRANT = CHECKOUT / "vagrant"
TOPOLOGY = Path(os.environ.get("LAB_TOPOLOGY") or VAGRANT / "topology.yaml")
STATE = CHECKOUT / "build" / "vagrant"
SHARE = STATE / "share"
LAB = STATE / "lab"  # the lab that is up; nothing there means that none is
SSH_CONFIG = LAB / "ssh_config"
