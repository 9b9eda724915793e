"""Pure decisions: values in, values out. No clock, socket, log or await.

Read in this order: `instance` (what Consul says), `admission` (may it serve?), `desired` (what we want), `ownership`
(what is ours), `guard` (what must not leave), `drain` (how the rest leaves), `plan` (the steps), `decision` (all of
them in one go), `remembrance` and `addresses` (what follows from it), `status` and `difference` (what operators see).
"""
