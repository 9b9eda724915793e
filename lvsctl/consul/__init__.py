"""Everything that speaks to Consul: `client` asks, `decode` reads the answer, `watch` keeps the last good ones."""
