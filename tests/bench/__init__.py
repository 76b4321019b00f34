"""Measure Perdure beside its peers on one private server: `make bench`."""
