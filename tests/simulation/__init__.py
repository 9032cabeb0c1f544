"""A simulation of the whole: the real engine over modelled services, under every fault and interleaving up to a bound.

    wire.py       every outgoing call passes here: what may become of it, and who goes on meanwhile
    stores.py     the three stores as their clients see them, call by call
    issuer.py     an issuer with the limits and delays that are configured
    world.py      one secret in these services, and the invariants, checked after every change
    scenarios.py  from where, who acts, and what must have come of it
    explore.py    which executions there are: every single deed, every pair, seeded random ones
    __main__.py   runs them on all cores and prints the table; replays one as a story

An execution is a scenario, a setting, and a plan: the deeds by number of step. Nothing else decides, so a plan
replays it exactly.

What is not shown: a store without compare-and-set, or an issuer's mint, that takes longer than CALL_LIMIT from the
operation's begin to its effect. Nothing can fence that. Stores with compare-and-set may carry out a write at any
later time, with one exception: the first credential of an entry whose issuer allows two keys (scenarios.Case).
"""
