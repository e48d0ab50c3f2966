"""The user's own classifier: loading it, identifying it, checking it, and calling it without trusting it."""
