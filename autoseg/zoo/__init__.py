"""The fixed networks of the literature, with the state-dict names under which weights for their backbones are given."""
