"""The user's own classifier: loaded, identified, judged, and asked without being trusted."""
