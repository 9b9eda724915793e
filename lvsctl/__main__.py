"""`python -m lvsctl`."""

from lvsctl.cli import main

main()
