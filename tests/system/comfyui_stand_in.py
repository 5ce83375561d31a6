"""As much of ComfyUI as the node package sees: its modules, its loader, its executor.

Run as a program it is a ComfyUI that queues one picture and exits at once, or with --stay
when it is killed.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import sys
import threading
import time
import types
import uuid
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

    def float(self):
        return Tensor(self.array.astype(numpy.float32), device=self.device)

    def numpy(self):
        assert self.device == "cpu", "its memory is not where NumPy can see it"
        return self.array

    def reshape(self, *shape):
        return self._like(self.array.reshape(*shape))

    def __iter__(self):
        return (self._like(array) for array in self.array)

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


class Interrupted(Exception):
    """ComfyUI's InterruptProcessingException."""


class Server:
    """PromptServer: events to pages, routes, the queue with its history."""

    def __init__(self):
        self.events = []  # (event, data, page)
        self.client_id = self.last_prompt_id = None
        self.handlers = {}
        self.on_prompt = []
        self.routes = types.SimpleNamespace(route=self._route)
        self.prompt_queue = types.SimpleNamespace(mutex=threading.RLock(), history={})

    def add_on_prompt_handler(self, handler):
        self.on_prompt.append(handler)

    def _route(self, method, path):
        def add(handler):
            self.handlers[method, path] = handler
        return add

    def send_sync(self, event, data, sid=None):
        self.events.append((event, json.loads(json.dumps(data)), sid))

    def queue_updated(self):
        pass


class Web:
    """aiohttp.web, for answers only."""

    @staticmethod
    def json_response(body, status=200):
        return status, json.loads(json.dumps(body))


class Latents:
    """ComfyUI's LoadLatent for the stand-in's tensors."""

    FUNCTION = "load"
    folder = None

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("STRING", {})}}

    def load(self, latent):
        from files import read_safetensors
        tensor = read_safetensors(self.folder / latent)[0]["latent_tensor"]
        return ({"samples": Tensor(tensor.astype(numpy.float32))},)


def modules(output_directory, disable_metadata=False, server=None):
    """{name: module} for sys.modules."""
    output_directory = Path(output_directory)
    made = {name: types.ModuleType(name) for name in (
        "folder_paths", "comfy", "comfy.cli_args", "comfy.model_management", "comfy.utils",
        "server", "aiohttp")}
    paths = made["folder_paths"]
    paths.get_output_directory = lambda: str(output_directory)
    paths.get_user_directory = lambda: str(output_directory.parent / "user")
    paths.get_filename_list = lambda kind: [f"{kind} of comfyui.safetensors"]
    made["comfy.cli_args"].args = types.SimpleNamespace(disable_metadata=disable_metadata)
    made["comfy"].cli_args = made["comfy.cli_args"]
    management = made["comfy.model_management"]
    management.interrupted = False

    def throw_exception_if_processing_interrupted():
        if management.interrupted:
            management.interrupted = False
            raise Interrupted()
    management.throw_exception_if_processing_interrupted = (
        throw_exception_if_processing_interrupted)
    made["comfy.utils"].ProgressBar = lambda total: types.SimpleNamespace(
        update_absolute=lambda value: None)
    made["server"].PromptServer = types.SimpleNamespace(instance=server)
    made["aiohttp"].web = Web
    return made


def load_package(name="luna_nodes_under_test"):
    """As ComfyUI loads a folder of custom_nodes."""
    spec = importlib.util.spec_from_file_location(name, PACKAGE / "__init__.py",
                                                  submodule_search_locations=[str(PACKAGE)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run_node(package, settings, name="LunaMultiSaverAsync"):
    """As ComfyUI's executor calls an output node: (ui, result)."""
    cls = package.NODE_CLASS_MAPPINGS[name]
    answer = getattr(cls(), cls.FUNCTION)(**settings)
    return answer["ui"], answer["result"]


class Executor:
    """Runs a prompt: strict inputs first, lazy ones on demand, each node once."""

    def __init__(self, classes, prompt, extra):
        self.classes, self.prompt, self.extra = classes, prompt, extra
        self.ran, self.results, self.ui = [], {}, {}

    def run(self, node_id):
        if node_id in self.results:
            return self.results[node_id]
        node = self.prompt[node_id]
        cls = self.classes[node["class_type"]]
        types_ = cls.INPUT_TYPES()
        declared = {**types_.get("required", {}), **types_.get("optional", {})}
        values, lazy = {}, {}
        for name, value in node["inputs"].items():
            if not isinstance(value, list):
                values[name] = value
            elif declared[name][1:] and declared[name][1].get("lazy"):
                lazy[name], values[name] = value, None
            else:
                values[name] = self._value(value)
        hidden = {"PROMPT": self.prompt, "EXTRA_PNGINFO": self.extra, "UNIQUE_ID": node_id}
        values.update({name: hidden[kind] for name, kind in types_.get("hidden", {}).items()})
        made = cls()
        if hasattr(made, "check_lazy_status"):
            for name in made.check_lazy_status(**values) or ():
                values[name] = self._value(lazy[name])
        self.ran.append(node_id)
        answer = getattr(made, cls.FUNCTION)(**values)
        if isinstance(answer, dict):
            self.ui[node_id], answer = answer["ui"], answer["result"]
        self.results[node_id] = answer
        return answer

    def _value(self, link):
        return self.run(link[0])[link[1]]


class Host:
    """A ComfyUI in this process. The real one has the same methods (comfyui_real.py)."""

    real = False

    def __init__(self, folder, nodes, patch):
        """`patch(name, module)` puts a module into sys.modules; `nodes` is a file of nodes."""
        self.output, self.input = folder / "output", folder / "input"
        self.input.mkdir(exist_ok=True)
        self.server = Server()
        self.modules = modules(self.output, server=self.server)
        for name, module in self.modules.items():
            patch(name, module)
        self.package = load_package()
        spec = importlib.util.spec_from_file_location("test_nodes", nodes)
        more = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(more)
        more.as_tensor = Tensor
        Latents.folder = self.input
        self.classes = {**self.package.NODE_CLASS_MAPPINGS, **more.NODE_CLASS_MAPPINGS,
                        "LoadLatent": Latents}

    def put(self, path, name):
        shutil.copy(path, self.input / name)

    def run(self, prompt, extra=None, page="a page"):
        """(id of the prompt, error or None), when it has ended."""
        prompt_id, error = str(uuid.uuid4()), None
        self.server.client_id, self.server.last_prompt_id = page, prompt_id
        for handler in self.server.on_prompt:
            prompt = handler({"prompt": prompt})["prompt"]
        run = Executor(self.classes, prompt, extra)
        try:
            for node_id, node in prompt.items():
                if getattr(self.classes[node["class_type"]], "OUTPUT_NODE", False):
                    run.run(node_id)
        except Exception as failed:  # noqa: BLE001 - the executor's own rule
            error = str(failed) or type(failed).__name__
        self.ran = run.ran
        with self.server.prompt_queue.mutex:
            self.server.prompt_queue.history[prompt_id] = {"outputs": json.loads(
                json.dumps(run.ui))}
        return prompt_id, error

    def forget(self):
        pass  # each prompt runs every node

    def interrupt(self):
        self.modules["comfy.model_management"].interrupted = True

    def outputs(self, prompt_id):
        with self.server.prompt_queue.mutex:
            return json.loads(json.dumps(self.server.prompt_queue.history[prompt_id]["outputs"]))

    def events(self, kind):
        """The data of every event of a kind that pages were sent."""
        return [data for event, data, _ in list(self.server.events) if event == kind]

    def ask(self, method, path):
        """(HTTP status, body) of one of the package's routes."""
        for (verb, pattern), handler in self.server.handlers.items():
            names = [part[1:-1] for part in pattern.split("/") if part.startswith("{")]
            parts = list(zip(pattern.split("/"), path.split("/")))
            fits = verb == method and pattern.count("/") == path.count("/") and all(
                one.startswith("{") or one == other for one, other in parts)
            if fits:
                found = [other for one, other in parts if one.startswith("{")]
                request = types.SimpleNamespace(match_info=dict(zip(names, found)))
                return asyncio.run(handler(request))
        return 404, None

    def close(self):
        if self.package is None:
            return
        sys.modules[f"{self.package.__name__}.session"]._close(os.getpid())
        for name in [name for name in sys.modules if name.startswith(self.package.__name__)]:
            del sys.modules[name]
        self.package = None


def main(output_directory, latent_file, vae, *flags):
    from files import read_safetensors
    sys.dont_write_bytecode = True
    sys.modules.update(modules(output_directory))
    tensor = Tensor(read_safetensors(latent_file)[0]["latent_tensor"])
    _, (_, job_id) = run_node(load_package(), {
        "latent_1": {"samples": tensor}, "vae_name": vae, "format_1": "png"})
    print(job_id, flush=True)
    while "--stay" in flags:
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
