"""Pure decisions: values in, values out. No clock, socket, log or await.

Read in this order: `instance` (what Consul says), `admission` (may it serve?), `desired` (what we want), `ownership`
(what is ours), `guard` (what must not leave), `drain` (how the rest leaves), `plan` (the steps), `decision` (all of
them in one go), `status` and `difference` (what operators see of it).
"""
