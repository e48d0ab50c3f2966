"""What no attacker can beat: lower bounds on the reconstruction error that follow from a release's law.

A defense states what one release can tell of its image (:class:`Observation`), or why nothing can be computed
(:class:`Uncertifiable`). :func:`certify` makes a bound of it, over a pool of private images.
"""

from mipoison.certificates.certificate import (
    COLUMNS,
    Certificate,
    by_pool_size,
    certificate_columns,
    certify,
)
from mipoison.certificates.observation import Gaussian, Observation, Uncertifiable
from mipoison.certificates.pool import PoolBound

__all__ = [
    "COLUMNS",
    "Certificate",
    "Gaussian",
    "Observation",
    "PoolBound",
    "Uncertifiable",
    "by_pool_size",
    "certificate_columns",
    "certify",
]
