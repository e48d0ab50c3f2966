"""Networks: classifiers (victim, evaluator), inversion models, and what defenses and attackers train."""
