"""The search space: what may be searched. No torch here."""
