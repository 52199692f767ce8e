"""The Python API: one function for each command. `import autoseg` offers them all."""
