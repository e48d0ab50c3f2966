"""Towards a person and the system: command line, progress, plain text, signals, scratch folders."""
