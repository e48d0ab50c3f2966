"""Data sets, image folders and the four-way split."""
