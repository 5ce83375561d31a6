"""Luna for ComfyUI: latents leave the sampler's GPU at once; a daemon decodes and saves them."""

from . import host, ids, routes
from .nodes import LunaMultiSaver, LunaQueueStatus
from .session import start

start()
if host.server() is not None:
    routes.add(host.server())

NODE_CLASS_MAPPINGS = {ids.SAVER: LunaMultiSaver, ids.STATUS: LunaQueueStatus}
NODE_DISPLAY_NAME_MAPPINGS = {ids.SAVER: "Luna Multi Saver (Daemon Async)",
                              ids.STATUS: "Luna Queue Status"}
WEB_DIRECTORY = "web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
