#!/usr/bin/python3
"""Writes astronaut.latent, coffee.latent and chelsea.latent from taef2_reference.safetensors.

They are what ComfyUI's SaveLatent writes after a FLUX.2 workflow: `latent_tensor`, an empty
`latent_format_version_0`, and the prompt and workflow as JSON texts in the header. FLUX.2
latents travel packed, [1, 128, H/16, W/16]; the two photographs whose sides do not allow
that stay unpacked, [1, 32, H/8, W/8].
"""
import json
import pathlib
import struct

import numpy as np

HERE = pathlib.Path(__file__).parent
SEED = 879352461234567890  # 64 bits wide, as ComfyUI's seeds are
TITLES = {
    "astronaut": "portrait of an astronaut in an orange suit, flag and shuttle behind her",
    "coffee": "a cup of coffee on a wooden table, seen from above",
    "chelsea": "close-up of a tabby cat named Chelsea",
}


def read(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, info in header.items():
        if name != "__metadata__" and info["dtype"] == "F16":
            begin, end = info["data_offsets"]
            raw = data[8 + length + begin : 8 + length + end]
            tensors[name] = np.frombuffer(raw, np.float16).reshape(info["shape"])
    return tensors


def pack(latent):
    """[1, c, 2h, 2w] to [1, 4c, h, w]: channel 4c + 2 row + column."""
    n, c, height, width = latent.shape
    cells = latent.reshape(n, c, height // 2, 2, width // 2, 2)
    return cells.transpose(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, height // 2, width // 2)


def prompt(name):
    return {
        "3": {"class_type": "KSampler", "inputs": {"seed": SEED, "steps": 20, "cfg": 1.0,
              "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
              "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
              "latent_image": ["5", 0]}},
        "4": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux2_dev.safetensors",
              "weight_dtype": "default"}},
        "5": {"class_type": "EmptyFlux2LatentImage",
              "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": TITLES[name], "clip": ["8", 0]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["8", 0]}},
        "8": {"class_type": "CLIPLoader", "inputs": {"clip_name": "mistral_3_small.safetensors",
              "type": "flux2"}},
        "9": {"class_type": "SaveLatent", "inputs": {"filename_prefix": f"latents/{name}",
              "samples": ["3", 0]}},
    }


def workflow(name):
    nodes = [{"id": int(key), "type": node["class_type"], "pos": [240 * i, 120], "mode": 0,
              "properties": {"Node name for S&R": node["class_type"]}}
             for i, (key, node) in enumerate(sorted(prompt(name).items()))]
    return {"last_node_id": 9, "last_link_id": 0, "nodes": nodes, "links": [], "groups": [],
            "config": {}, "extra": {"title": name}, "version": 0.4}


def write(path, name, latent):
    header = {
        "__metadata__": {"prompt": json.dumps(prompt(name)),
                         "workflow": json.dumps(workflow(name))},
        "latent_tensor": {"dtype": "F16", "shape": list(latent.shape),
                          "data_offsets": [0, latent.nbytes]},
        "latent_format_version_0": {"dtype": "F32", "shape": [0],
                                    "data_offsets": [latent.nbytes, latent.nbytes]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + latent.tobytes())


def main():
    tensors = read(HERE / "taef2_reference.safetensors")
    for name in TITLES:
        latent = tensors[f"{name}.latent"]
        if latent.shape[2] % 2 == 0 and latent.shape[3] % 2 == 0:
            latent = pack(latent)
        write(HERE / f"{name}.latent", name, np.ascontiguousarray(latent))


if __name__ == "__main__":
    main()
