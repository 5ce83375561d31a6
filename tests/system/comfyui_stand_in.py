"""As much of ComfyUI as the node sees: its modules, its loader, its tensors.

Run as a program it is a ComfyUI that queues one picture and exits at once.
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy

PACKAGE = Path(__file__).resolve().parent.parent.parent / "producer" / "comfyui"


class Tensor:
    """A torch.Tensor over numpy, with what the node may use and nothing else."""

    def __init__(self, array, dtype=None, device="cpu"):
        self.array = array
        self.dtype = f"torch.{dtype or array.dtype}"
        self.device = device
        self.shape = array.shape

    def _like(self, array, device=None):
        return Tensor(array, self.dtype.removeprefix("torch."), device or self.device)

    def detach(self):
        return self

    def cpu(self):
        return self._like(self.array, "cpu")

    def is_contiguous(self):
        return self.array.flags.c_contiguous

    def contiguous(self):
        return self._like(numpy.ascontiguousarray(self.array))

    def data_ptr(self):
        assert self.device == "cpu" and self.is_contiguous(), "its memory is not what C expects"
        return self.array.ctypes.data

    def numel(self):
        return self.array.size

    def element_size(self):
        return self.array.itemsize


class NestedTensor:
    is_nested = True


def bfloat16(array):
    """Truncated to bfloat16, as a Tensor of 16-bit patterns."""
    bits = numpy.ascontiguousarray(array, numpy.float32).view(numpy.uint32) >> 16
    return Tensor(bits.astype(numpy.uint16), "bfloat16")


def modules(output_directory, disable_metadata=False):
    """{name: module} for sys.modules."""
    folder_paths = types.ModuleType("folder_paths")
    folder_paths.get_output_directory = lambda: str(output_directory)
    cli_args = types.ModuleType("comfy.cli_args")
    cli_args.args = types.SimpleNamespace(disable_metadata=disable_metadata)
    comfy = types.ModuleType("comfy")
    comfy.cli_args = cli_args
    return {"folder_paths": folder_paths, "comfy": comfy, "comfy.cli_args": cli_args}


def load_package(name="luna_nodes_under_test"):
    """As ComfyUI loads a folder of custom_nodes."""
    spec = importlib.util.spec_from_file_location(name, PACKAGE / "__init__.py",
                                                  submodule_search_locations=[str(PACKAGE)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run_node(package, settings):
    """As ComfyUI's executor calls an output node: (ui, result)."""
    cls = package.NODE_CLASS_MAPPINGS["LunaMultiSaver"]
    answer = getattr(cls(), cls.FUNCTION)(**settings)
    return answer["ui"], answer["result"]


def main(output_directory, latent_file, vae):
    from files import read_safetensors
    sys.dont_write_bytecode = True
    sys.modules.update(modules(output_directory))
    tensor = Tensor(read_safetensors(latent_file)[0]["latent_tensor"])
    _, (_, job_id) = run_node(load_package(), {"latent_1": {"samples": tensor}, "vae_name": vae})
    print(job_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
