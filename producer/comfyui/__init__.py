"""Luna for ComfyUI: latents leave the sampler's GPU at once; a daemon decodes and saves them."""

from .nodes import LunaMultiSaver
from .session import deliver_outbox

deliver_outbox()

NODE_CLASS_MAPPINGS = {"LunaMultiSaver": LunaMultiSaver}
NODE_DISPLAY_NAME_MAPPINGS = {"LunaMultiSaver": "Luna Multi Saver (Daemon Async)"}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
