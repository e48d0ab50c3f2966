"""Reports of a study for people: tables, figures, ``report.md`` and the HTML page."""
