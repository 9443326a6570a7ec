"""Scan orders: in which order the cells of a grid are visited. One file an order."""
