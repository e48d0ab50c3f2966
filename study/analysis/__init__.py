"""What records say: each setting's worst attackers, intervals, the Pareto frontier, comparisons."""
