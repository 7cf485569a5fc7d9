"""`make bench-gateway`: the gateway's toll, beside nginx and no gateway at all, in one run.

One gateway process on the first core; the upstream, the load, PostgreSQL and Redis on the last.
Authentication, rate limit, three budgets and the journal are on. The figures are this machine's.

    instruments/    the upstream and the load clients: C and Lua, built for each run
    processes.py    what was started, where its output is, and its end
    machine.py      cores, processor time by who used it, memory, calm
    paid_stack.py   PostgreSQL and Redis, migrated, with one organisation that has a key
    targets.py      what is measured: direct, nginx, the gateway durable and in process mode
    workload.py     what is asked of them
    load.py         one run of a load client, as numbers
    rounds.py       targets in turn, disturbed runs replaced, medians
    speed.py        chat and streams        memory.py, cold_start.py    what their names say
    accounts.py     every answer is in the journal once: the one thing that fails a run
    bench.py        one run: its options and everything it holds
    report.py       the table and the JSON lines
"""
