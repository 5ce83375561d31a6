"""The ids of the nodes in workflows and prompts.

LunaMultiSaver is the id of another package's node, which saves images: both can be installed.
A node of that id with a `latent_1` is Luna's saver all the same; the page does the same for
workflows (web/luna.js).
"""

SAVER, STATUS = "LunaMultiSaverAsync", "LunaQueueStatus"
OTHERS = "LunaMultiSaver"


def renamed(request):
    """The body of ComfyUI's POST /prompt with Luna's savers under their id."""
    prompt = request.get("prompt")
    for node in prompt.values() if isinstance(prompt, dict) else ():
        if node.get("class_type") == OTHERS and "latent_1" in node.get("inputs", {}):
            node["class_type"] = SAVER
    return request
