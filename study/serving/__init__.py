"""The served classifier: requests judged and parsed, answered on Ray Serve, bounded in what they may cost."""
