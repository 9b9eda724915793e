"""Tests of netlink: the codec by properties, the clients by one contract."""
