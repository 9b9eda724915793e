"""Fuzz targets for all of `netlink` that reads or writes bytes, and for Consul's answers; their seeds, and the finds.

A target takes bytes and raises only on a bug. `test_fuzz` calls each with the seeds, the finds, and what hypothesis
makes of them; `python -m tests.fuzz` (`make fuzz`) lets atheris, a fuzzer that follows coverage, look for more.
"""
