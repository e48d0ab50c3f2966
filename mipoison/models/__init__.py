"""Networks: classifiers (victim, evaluator) and inversion models."""
