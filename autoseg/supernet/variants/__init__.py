"""Relaxations that change the mathematics."""
