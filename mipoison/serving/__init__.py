"""A classifier behind its post-processing unit: fitted, saved, wrapped, exported."""
