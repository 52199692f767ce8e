"""Figures of trellises, cells, genotypes and runs, with matplotlib's object API. No torch and no pyplot here."""
