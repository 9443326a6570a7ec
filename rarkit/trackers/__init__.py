"""Trackers: where the numbers and pictures of a training are shown while it runs."""
