"""What every defense and attacker has to keep, as checks that the tests and ``mipoison check`` share."""

from mipoison.contract.attackers import ATTACKER_CHECKS
from mipoison.contract.cases import AttackerCase, Broken, DefenseCase, Result, run_checks
from mipoison.contract.defenses import DEFENSE_CHECKS

__all__ = [
    "ATTACKER_CHECKS",
    "DEFENSE_CHECKS",
    "AttackerCase",
    "Broken",
    "DefenseCase",
    "Result",
    "run_checks",
]
