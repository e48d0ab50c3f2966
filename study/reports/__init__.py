"""What a person reads of a study: tables, figures, report.md and the page."""
