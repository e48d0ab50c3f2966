"""What no attacker can beat: lower bounds on the reconstruction error that follow from the release's law."""
