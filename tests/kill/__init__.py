"""Kills the real `keyturn` at every outgoing request, before and after it took effect, and looks what is left.

`python -m tests.kill` does all of it (`make kill`); `test_kill.py` a seeded share.

    keyturn sweep ──► wire: one proxy before each server, requests counted over all ──► OpenBao, AWS, Key Vault, OpenAI
       ▲ SIGKILL at the n-th ◄──┘   └─► after every request: consumers read and use what each store hands out
       └── sweeps, time moved between them, until all is settled

site.py has the servers and one execution's surroundings, wire.py the proxies, consumers.py the applications,
execution.py the scenarios and what must hold.
"""
