"""The fixed networks: one file a family, with a record for each network and its options. These load without torch.

A file imports the torch modules that it puts together, such as `autoseg.zoo.unet`, when it builds. Every file in this
folder is found by itself; those of the literature come first, in their order in time.
"""

import importlib
import pkgutil

_FIRST = ("fcn", "deeplab", "unet", "deconvnet")

for _name in dict.fromkeys((*_FIRST, *sorted(module.name for module in pkgutil.iter_modules(__path__)))):
    importlib.import_module(f"{__name__}.{_name}")
