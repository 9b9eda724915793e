# Each target is one line that a person could type. `install` asks for root or sudo only where something is missing.
PYTHON = .venv/bin/python
LAB = $(PYTHON) -m tests.lab.kernel

.PHONY: help install demo test lint unit kernel soak histories promises compare lab-test lab-test-full vagrant-test test-kernels bench fuzz shell clean

help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile; sed -n 's/^#: \{0,1\}//p' Makefile

#:
#: One test:    make unit ARGS='tests/core -k drain'      (pytest's arguments)
#:              make kernel ARGS='tests/lab/test_lab.py -k masquerade -s'
#: Another lab: make shell ARGS=direct-route                 (masquerade, direct-route or tunnel)
#: One command: .venv/bin/python -m tests.lab.kernel -- ipvsadm -Ln
#: LVSCTL_CONSUL=/path/to/consul     use this Consul; else the one on PATH, else Debian's 1.8.7
#: LVSCTL_LAB_KERNEL=uml|host        use this kernel; else the host's when it has IPVS, else User-Mode Linux
#:   or uml-5.10, uml-6.1, uml-6.12, uml-7.2, which make test-kernels installs

install: ## install what is missing: Debian packages, .venv, Consul
	@tests/lab/install.sh $(MAKECMDGOALS)

demo: install ## show the daemon at work in the lab, in under two minutes
	@$(LAB) --timeout 300 -- python -m tests.lab.demo

test: install ## lint, unit tests and kernel tests, with a summary
	@tests/lab/run_all.sh

lint: install ## ruff, mypy, import-linter, shellcheck, and what Ruby and Vagrant say of the lab's description
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports
	@vagrant/runner/lint.sh

unit: install ## the tests that need no special kernel
	$(PYTHON) -m pytest -n auto --dist loadfile -m 'not kernel' $(ARGS)

kernel: install ## the tests that need IPVS, in the lab's kernel
	@$(PYTHON) -m tests.lab.kernel_tests $(ARGS)

soak: install ## the kernel tests that wait for minutes
	@$(PYTHON) -m tests.lab.kernel_tests -m 'kernel and soak' $(ARGS)

promises: install ## show each promise of docs/promises.md and its figure, or only some: ARGS='P3 P7'
	@$(PYTHON) -m tests.lab.promises $(ARGS)

compare: install ## lvsctl, a template updater and keepalived in the same stories under traffic: ARGS='-k deploy'
	@tests/bench/install.sh keepalived && $(PYTHON) -m tests.compare $(ARGS)

lab-test: install ## boot the lab of virtual machines (profile mini, without KVM), verify it, tell every story
	@vagrant/runner/install.sh && $(PYTHON) -m vagrant.runner test mini $(ARGS)

lab-test-full: install ## the same with the profile full
	@vagrant/runner/install.sh && $(PYTHON) -m vagrant.runner test full $(ARGS)

vagrant-test: install ## the same by a real `vagrant up` with libvirt, emulated: mini, or ARGS=full
	@vagrant/runner/install.sh vagrant && vagrant/runner/vagrant_test.sh $(or $(ARGS),mini)

test-kernels: install ## the kernel tests of netlink in Linux 5.10, 6.1, 6.12 and 7.2
	@$(PYTHON) -m tests.lab.every_kernel $(ARGS)

bench: install ## measure netlink/ against ipvsadm, keepalived and C; also writes build/bench.json
	@tests/bench/install.sh && $(PYTHON) -m tests.bench $(ARGS)

histories: install ## properties over random histories, 4,000 for each or ARGS: more than 100,000 in all
	LVSCTL_HISTORIES=$(or $(ARGS),4000) $(PYTHON) -m pytest -q -m histories -n auto

fuzz: install ## look for bytes that break netlink/ or decoding: ARGS='--target bulk --seconds 300'
	@.venv/bin/python -c 'import atheris' 2>/dev/null || .venv/bin/pip install -q --disable-pip-version-check -e '.[fuzz]' || \
		{ echo "fuzz: no atheris for this Python from PyPI; make unit ARGS=tests/fuzz tries the same with hypothesis" >&2; exit 1; }
	@$(PYTHON) -m tests.fuzz $(ARGS)

shell: install ## a shell on the director, with client, real servers and Consul running
	@$(LAB) --tty --timeout 86400 -- python -m tests.lab.shell $(ARGS)

clean: ## remove .venv, the lab's state and all caches
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
