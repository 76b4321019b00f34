"""The simulation: one thread, many connections, one seed. `soak.py` runs it, `world.py` begins to explain it."""
