"""Audit of a deployed endpoint: asks it over HTTP, keeps every answer, attacks, and says what leaks."""
