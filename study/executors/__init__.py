"""Where trials run: in this process, as Ray Tune trials, or as groups of Ray Train workers."""
