"""lvsctl keeps the kernel's IPVS table equal to what Consul says is healthy."""

from typing import Final

__version__: Final = "0.1.0"
