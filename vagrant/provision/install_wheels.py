"""Unpacks wheels into the environment of the Python that runs this, writes lvsctl's command, compiles what it imports.

    /opt/lvsctl/bin/python install_wheels.py DIRECTORY

pip would do, but pip under emulation takes minutes, and a director need not have it.
"""

import importlib
import pathlib
import pkgutil
import sys
import sysconfig
import zipfile

COMMAND = """#!{python} -I
import sys
from lvsctl.cli import main
sys.exit(main())
"""


def main(directory: str) -> int | str:
    """Install every wheel of `directory`."""
    target = pathlib.Path(sysconfig.get_path("purelib"))
    wheels = sorted(pathlib.Path(directory).glob("*.whl"))
    if not any(each.name.startswith("lvsctl-") for each in wheels):
        return f"install_wheels: no lvsctl-*.whl in {directory}: make the share again (vagrant/share.sh)"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    command = pathlib.Path(sys.executable).parent / "lvsctl"
    command.write_text(COMMAND.format(python=sys.executable), encoding="ascii")
    command.chmod(0o755)
    # What root imports once is compiled for all: the service's user may not write here.
    importlib.invalidate_caches()
    package = importlib.import_module("lvsctl")
    for module in pkgutil.walk_packages(package.__path__, "lvsctl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
