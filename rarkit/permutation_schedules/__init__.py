"""Permutation schedules: how often a sample is trained on a random permutation. ``draw`` turns that into permutations."""
