"""The fixed networks: one file for each family, with a record for each network and its options. Loads without torch.

A builder imports torch modules when it is called. All files here are imported, those of the literature first, by year.
"""

import importlib
import pkgutil

_FIRST = ("fcn", "deeplab", "unet", "deconvnet")

for _name in dict.fromkeys((*_FIRST, *sorted(module.name for module in pkgutil.iter_modules(__path__)))):
    importlib.import_module(f"{__name__}.{_name}")
