"""Worked examples, run by the tests."""
