"""mipoison: measured defenses against neural-network model inversion."""

__version__ = "0.1.0"
