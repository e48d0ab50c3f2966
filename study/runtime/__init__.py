"""Command line, progress display, safe text output, signal handling and temporary folders."""
