"""The fixed networks: one file for each family, with a record for each network and its options. Loads without torch.

A builder imports its torch modules, such as `autoseg.zoo.unet`, when it is called. Every file in this folder is
imported; those of the literature come first, in order of time.
"""

import importlib
import pkgutil

_FIRST = ("fcn", "deeplab", "unet", "deconvnet")

for _name in dict.fromkeys((*_FIRST, *sorted(module.name for module in pkgutil.iter_modules(__path__)))):
    importlib.import_module(f"{__name__}.{_name}")
