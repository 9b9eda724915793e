"""Boots the lab as plain QEMU guests, without Vagrant, KVM or root: `python -m vagrant.runner --help`.

The guests are those of `topology.yaml`, on a disk that `box.sh` builds, and are provisioned by the scripts that Vagrant
runs, too. Everything a lab has lies under build/vagrant, and `down` needs nothing else to end it.

- `topology`: the guests of a profile. Pure but for reading the file.
- `machine`: a guest's QEMU command, its network cards and its ssh entry. Pure.
- `box`: the disk, built once for each recipe.
- `lab`: guests that run: booting, power, teardown.
- `tasks`: what is done with a lab: provision, verify, stories, and the summary of a whole test.
- `libvirt`: the same lab by a real `vagrant up`, with a libvirtd of our own.
"""
