"""Scan orders: the order in which the cells of a grid are visited. One file per order."""
