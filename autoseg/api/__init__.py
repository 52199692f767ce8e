"""The Python API: one function a command. `import autoseg` offers them all."""
