"""Simulated events, a function of (seed, event number) alone."""
