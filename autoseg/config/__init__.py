"""The settings of a run as frozen models. An unknown key is an error with a suggestion."""
