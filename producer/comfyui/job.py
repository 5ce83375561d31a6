"""A job as the node makes it; both bindings and the local decode take it from here.

Settings have the names and meanings of luna.h. Tensors are borrowed for the submit only.
"""

from .latents import dtype_name


class Input:
    """One latent batch: a contiguous CPU tensor and the settings of luna_latent."""

    def __init__(self, tensor, **settings):
        self.tensor = tensor
        self.shape = tuple(tensor.shape)
        self.dtype = dtype_name(tensor)
        self.bytes = tensor.numel() * tensor.element_size()
        self.settings = settings


class Job:
    """Settings of luna_submission, the further keys of extra_pnginfo, 1 to 5 inputs, sets of
    heatmaps (heatmaps.py)."""

    def __init__(self, settings, extras, inputs, heatmaps=()):
        self.settings = settings
        self.extras = extras
        self.inputs = inputs
        self.heatmaps = list(heatmaps)
        self.left_out = []  # sentences, for the user

    @property
    def images(self):
        return sum(one.shape[0] for one in self.inputs)
