"""The lab of virtual machines: README.md says what it is. Only `vagrant.runner` is Python of the host's side."""
