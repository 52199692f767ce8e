"""Genotypes: discrete architectures as data, and how they are decoded from a search. No torch here."""
