"""The lab: a kernel with IPVS, hosts in its network namespaces, a real Consul, servers and traffic.

`kernel` brings the kernel, `hosts` the hosts, `consul`, `servers` and `traffic` what runs on them, and
`scene` puts the usual ones together. Everything but `kernel` runs inside.
"""
