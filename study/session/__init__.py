"""Running a study: the study's state, the loop over its trials, the lease, and the callbacks."""
