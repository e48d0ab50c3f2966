"""Data sets, image folders, and the split of the images between victim and attacker."""
