"""The room in which a study runs: the study, the loop over its trials, and who is told of it."""
