"""Permutation schedules: how often a sample is trained on a random permutation. ``draw`` draws the permutations."""
