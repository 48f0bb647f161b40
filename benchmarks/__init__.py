"""Measures the speed of training and solving against peers: `make bench`."""
