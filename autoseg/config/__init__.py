"""The settings of a run as frozen models. An unknown key is an error that suggests the right one.

Import from the modules: `base` (the model, merging, messages), `data`, `training`, `losses`, `inference`.
"""
