"""What every entry script shows and answers: names, exit codes, one line for an error, progress."""
