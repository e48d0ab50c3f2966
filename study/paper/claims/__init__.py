"""Claims of the paper, of rival defenses and of ourselves, each with the rule by which records decide it."""
