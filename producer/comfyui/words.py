"""%date:FORMAT% and %Node.widget% in a template, filled in before the job leaves.

ComfyUI's page does that for its own savers only, by their names; here it is done for
every caller, API clients too. Everything else between percent signs is the daemon's.
"""

import logging
import re
import time

_WORD = re.compile(r"%([^%]+)%")
_DATE = re.compile(r"yyyy|yy|M{1,2}|d{1,2}|h{1,2}|m{1,2}|s{1,2}")
_UNFIT = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')

_log = logging.getLogger("luna")


def expand(template, prompt, workflow, now=None):
    """The template with both kinds of word filled in; what is unknown stays as it is."""
    nodes = _nodes_by_name(prompt or {}, workflow or {})
    now = now or time.localtime()

    def value(match):
        word = match.group(1)
        if word.startswith("date:"):
            return date(word[len("date:"):], now)
        found = _widget(word, nodes)
        return match.group(0) if found is None else found
    return _WORD.sub(value, template)


def date(form, now):
    """`form` with yyyy yy, M MM (month), d dd, h hh (of 24), m mm (minute), s ss filled in."""
    parts = {"M": now.tm_mon, "d": now.tm_mday, "h": now.tm_hour, "m": now.tm_min,
             "s": now.tm_sec}

    def part(match):
        word = match.group(0)
        if word[0] == "y":
            return f"{now.tm_year:04}"[-len(word):]
        return f"{parts[word[0]]:0{len(word)}}"
    return _DATE.sub(part, form)


def _nodes_by_name(prompt, workflow):
    """{name: inputs}: by the name for search and replace, the title, then the class."""
    names = {}
    for node in workflow.get("nodes") or []:
        inputs = prompt.get(str(node.get("id")), {}).get("inputs")
        name = (node.get("properties") or {}).get("Node name for S&R")
        if inputs is not None and name:
            names.setdefault(name, inputs)
    for key in ("title", "class"):
        for node in prompt.values():
            title = (node.get("_meta") or {}).get("title")
            names.setdefault(title if key == "title" else node.get("class_type"),
                             node.get("inputs") or {})
    return names


def _widget(word, nodes):
    """The text of "Node.widget"; None when it is no such word."""
    name, dot, widget = word.rpartition(".")
    if not dot or name not in nodes or ":" in word:
        return None
    value = nodes[name].get(widget)
    if value is None or isinstance(value, (list, dict)):  # absent, or comes by a link
        _log.warning("Luna: %%%s%% has no value: the node has no widget of this name", word)
        return None
    return _UNFIT.sub("_", str(value))
