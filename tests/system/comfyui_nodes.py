"""Nodes that tests put beside Luna's: a VAE whose decode is Luna's own, so that pictures
that are decoded in ComfyUI and by the daemon can be compared byte by byte."""

import os
import subprocess
import tempfile
from pathlib import Path

import numpy


def as_tensor(array):
    import torch

    return torch.from_numpy(array)


class LunaVae:
    def decode(self, samples):
        """[N, H, W, 3] in 0 to 1, as ComfyUI's VAE."""
        from files import read_safetensors, write_latent
        with tempfile.TemporaryDirectory() as folder:
            latents = write_latent(Path(folder, "in"), samples.float().cpu().numpy())
            subprocess.run([Path(os.environ["LUNA_TEST_BIN"], "luna-vae"), "decode", "--model",
                            os.environ["LUNA_TEST_VAE"], "--latents", latents, "--output",
                            Path(folder, "out")], check=True)
            pixels = read_safetensors(Path(folder, "out"))[0]["pixels"]
        return as_tensor(numpy.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))


class LunaTestVae:
    RETURN_TYPES, FUNCTION, CATEGORY = ("VAE",), "load", "Luna/Test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def load(self):
        return (LunaVae(),)


NODE_CLASS_MAPPINGS = {"LunaTestVae": LunaTestVae}
