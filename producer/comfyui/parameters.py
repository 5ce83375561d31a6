"""AUTOMATIC1111's text `parameters` of a picture that is decoded here, as the daemon makes it
(decoder/worker/parameters.h has the three lines and the keys). What the metadata lacks is left
out.
"""

import json

_ANY = ("positive", "prompt", "steps", "seed", "sampler_name", "sampler")  # one is enough
_SAMPLERS = {
    "euler": "Euler", "euler_ancestral": "Euler a", "heun": "Heun", "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a", "lms": "LMS", "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive", "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE", "dpmpp_2m": "DPM++ 2M", "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE", "ddim": "DDIM", "uni_pc": "UniPC", "lcm": "LCM"}
_SCHEDULERS = {"karras": " Karras", "exponential": " Exponential"}


def text_of(metadata, width, height):
    """The text of the metadata, a JSON object or None; None when it has none of the keys."""
    known = _members(metadata)
    if not any(key in known for key in _ANY):
        return None

    def first(*keys):
        return next((known[key] for key in keys if key in known), "")
    pairs = {"Steps": first("steps"), "Sampler": _sampler(first),
             "CFG scale": first("cfg", "cfg_scale"), "Seed": first("seed"),
             "Size": f"{width}x{height}", "Model hash": first("model_hash"),
             "Model": first("model_name", "model"), "Denoising strength": _denoise(first),
             "Clip skip": first("clip_skip").removeprefix("-"), "Version": "ComfyUI"}
    return (f"{first('positive', 'prompt')}\n"
            f"Negative prompt: {first('negative', 'negative_prompt')}\n"
            + ", ".join(f"{label}: {value}" for label, value in pairs.items() if value))


def _members(metadata):
    """{key: text}; numbers by their own digits, null as nothing."""
    try:
        found = json.loads(metadata or "{}", parse_int=str, parse_float=str, parse_constant=str)
        whole = json.loads(metadata or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value if isinstance(value, str) else
            "" if value is None else json.dumps(whole[key]) for key, value in found.items()}


def _sampler(first):
    sampler = first("sampler_name", "sampler")
    return sampler and _SAMPLERS.get(sampler, sampler) + _SCHEDULERS.get(first("scheduler"), "")


def _denoise(first):
    value = first("denoise")
    return "" if value in ("1", "1.0") else value
