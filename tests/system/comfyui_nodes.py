"""Nodes that tests put beside Luna's: a VAE whose decode is Luna's own, so that pictures
that are decoded in ComfyUI and by the daemon can be compared byte by byte."""

import os
import subprocess
import tempfile
import time
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


class LunaTestSampler:
    """A sampler on a GPU, as the CPU sees it: so many seconds in which nothing is computed."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("LATENT",), "sample", "Luna/Test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",), "seed": ("INT", {"default": 0}),
                             "seconds": ("FLOAT", {"default": 1.0, "step": 0.001})}}

    def sample(self, latent, seed, seconds):
        time.sleep(seconds)
        return (latent,)


class LunaTestHeatmaps:
    """What comfyui-daam's sampler gives of one image: steps, factors and layers of 2 tokens."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("HEATMAP", "TOKENS"), "sample", "Luna/Test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def sample(self):
        def layer(number):
            return as_tensor(numpy.arange(number, number + 12, dtype=numpy.float32)
                             .reshape(2, 1, 2, 3) / 7)
        steps = [{0: {1: [layer(step), layer(9)], 2: [layer(2)]}} for step in range(3)]
        return steps, {"l": [[(49406, 1.0), (2368, 1.0)]]}


class LunaTestMetadata:
    """What a node that collects generation data gives."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("METADATA",), "collect", "Luna/Test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def collect(self):
        return ({"positive": "caf\u00e9 <&>", "negative": "", "steps": 4,
                 "sampler_name": "euler_ancestral", "seed": 2**64 - 1},)


class AnotherPackagesSaver:
    """The node of another package under an id that could be taken for Luna's."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "save", "Luna/Test", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image_1": ("LATENT",)}}

    def save(self, image_1):
        return {"ui": {"text": ["another package"]}, "result": ()}


NODE_CLASS_MAPPINGS = {"LunaTestVae": LunaTestVae, "LunaTestSampler": LunaTestSampler,
                       "LunaTestHeatmaps": LunaTestHeatmaps,
                       "LunaTestMetadata": LunaTestMetadata,
                       "LunaMultiSaver": AnotherPackagesSaver}


def start_clock():
    """Notes when the executor says what it does, and answers GET /luna_test/clock with it."""
    from aiohttp import web
    from server import PromptServer

    server, noted = PromptServer.instance, []
    send_sync = server.send_sync

    def noting(event, data, sid=None):
        if event in ("executing", "execution_start", "execution_success"):
            noted.append((time.monotonic(), event, data.get("prompt_id"), data.get("node")))
        send_sync(event, data, sid)
    server.send_sync = noting

    @server.routes.get("/luna_test/clock")
    async def clock(_request):
        return web.json_response(noted)


if os.environ.get("LUNA_TEST_CLOCK"):
    start_clock()
