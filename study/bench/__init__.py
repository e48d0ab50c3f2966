"""The parts of ``study/benchmark.py``: each measures one thing and returns rows."""
