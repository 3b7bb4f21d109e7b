"""Simulations with known truth, one a file: what each returns is a list of figures, one a seed."""
