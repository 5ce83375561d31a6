"""What this package uses of ComfyUI: its modules, asked late and never relied upon.

ComfyUI's folders and flags are public; the history and the browser's events are not, so
whatever goes wrong with them is logged at debug level and costs nothing but the display.
"""

import logging
import os
import time

_LISTS_FOR_S = 5  # how long a list of model files is kept: INPUT_TYPES is asked often

_log = logging.getLogger("luna")
_lists = (0.0, [])


def metadata_disabled():
    from comfy.cli_args import args

    return bool(args.disable_metadata)


def output_directory():
    import folder_paths

    return os.path.abspath(folder_paths.get_output_directory())


def user_directory():
    """ComfyUI's folder for what belongs to its user, None where it has none."""
    try:
        import folder_paths

        return os.path.abspath(folder_paths.get_user_directory())
    except (ImportError, AttributeError):
        return None


def model_files():
    """The names of ComfyUI's VAEs, then of its checkpoints."""
    global _lists
    if time.monotonic() - _lists[0] < _LISTS_FOR_S:
        return _lists[1]
    names = []
    try:
        import folder_paths

        for kind in ("vae", "checkpoints"):
            names += folder_paths.get_filename_list(kind)
    except Exception as error:  # noqa: BLE001 - folders of models are the user's
        _log.debug("Luna: no list of models: %s", error)
    _lists = (time.monotonic(), names)
    return names


_clip_words = None  # id: word, of ComfyUI's own tokenizer


def clip_word(token):
    """The text of an id of CLIP's vocabulary, "" where it is not known (embeddings too)."""
    global _clip_words
    if _clip_words is None:
        try:
            from comfy.sd1_clip import SDTokenizer

            _clip_words = SDTokenizer().inv_vocab
        except Exception as error:  # noqa: BLE001 - it is decoration
            _log.debug("Luna: no words for tokens: %s", error)
            _clip_words = {}
    return _clip_words.get(token, "").removesuffix("</w>") if isinstance(token, int) else ""


def server():
    """ComfyUI's PromptServer, None outside of it (tests, scripts)."""
    try:
        from server import PromptServer

        return PromptServer.instance
    except (ImportError, AttributeError):
        return None


def current_prompt():
    """(id, id of the page that queued it) of the running prompt; None for what is unknown."""
    here = server()
    return getattr(here, "last_prompt_id", None), getattr(here, "client_id", None)


def check_interrupt():
    """Raises ComfyUI's own exception when the user pressed Cancel."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
    except ImportError:
        return
    throw_exception_if_processing_interrupted()


def progress_bar(total):
    """ComfyUI's progress of the running node, or None. For the executor's thread only."""
    try:
        from comfy.utils import ProgressBar

        return ProgressBar(total)
    except Exception:  # noqa: BLE001 - it is decoration
        return None


def send(event, data, client_id):
    """An event to one page, or with None to all. From any thread."""
    try:
        here = server()
        if here is not None:
            here.send_sync(event, data, client_id)
    except Exception as error:  # noqa: BLE001
        _log.debug("Luna: cannot tell the page: %s", error)


def add_to_history(prompt_id, node_id, output):
    """Sets a node's output in a finished prompt; False while the prompt is not there."""
    try:
        queue = server().prompt_queue
        with queue.mutex:
            entry = queue.history.get(prompt_id)
            if entry is None:
                return False
            entry["outputs"].setdefault(node_id, {}).update(output)
        server().queue_updated()
    except Exception as error:  # noqa: BLE001
        _log.debug("Luna: cannot complete the history: %s", error)
    return True


def view_of(path):
    """A saved file as ComfyUI's /view names it; None when it is outside the output folder."""
    try:
        below = os.path.relpath(os.path.realpath(path), os.path.realpath(output_directory()))
    except ValueError:  # another drive
        return None
    if below.startswith("..") or os.path.isabs(below):
        return None
    folder, name = os.path.split(below)
    return {"filename": name, "subfolder": folder.replace(os.sep, "/"), "type": "output"}
