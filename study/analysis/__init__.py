"""Statistics of a study's records: worst attackers, intervals, the Pareto frontier, comparisons."""
