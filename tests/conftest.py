"""Every test runs on one thread, so that two workers share two cores, and its figures do not depend on the machine."""

import torch

torch.set_num_threads(1)
