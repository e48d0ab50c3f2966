"""Executors run trials: in this process, as Ray Tune trials, or in Ray Train worker groups."""
