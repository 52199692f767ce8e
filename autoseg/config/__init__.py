"""The settings of a run as frozen models. An unknown key is an error with a suggestion.

Import from the modules: `base` (the model, merging, messages), `data`, `training`, `losses`, `inference`.
"""
