"""LATENT in, memory out: what of ComfyUI's latents Luna takes, and in which form.

Nothing of torch is imported: only address, shape and dtype of the tensors are used.
"""

DTYPES = ("float32", "float16", "bfloat16")


def latent_tensor(latent, label):
    """The samples as a contiguous CPU tensor of a dtype and shape that Luna takes."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if samples is None:
        raise ValueError(f"Luna: {label} is not a LATENT: it has no samples")
    if getattr(samples, "is_nested", False) or not hasattr(samples, "data_ptr"):
        raise ValueError(f"Luna: {label} holds nested latents (of a video or audio model); Luna "
                         "saves pictures. Take the picture part out of it first")
    shape = tuple(samples.shape)
    if len(shape) == 5 and shape[2] != 1:
        raise ValueError(f"Luna: {label} is a video latent of {shape[2]} frames "
                         f"{list(shape)}; Luna saves pictures. Use a video saver for it")
    if len(shape) not in (4, 5):
        raise ValueError(f"Luna: {label} has shape {list(shape)}, not [batch, channels, height, "
                         "width]")
    samples = samples.detach()
    if dtype_name(samples) == "float64":
        samples = samples.float()
    if dtype_name(samples) not in DTYPES:
        raise ValueError(f"Luna: {label} is {dtype_name(samples)}; Luna takes "
                         f"{', '.join(DTYPES)}")
    samples = samples.cpu()
    return samples if samples.is_contiguous() else samples.contiguous()


def dtype_name(tensor):
    return str(tensor.dtype).rsplit(".", 1)[-1]
