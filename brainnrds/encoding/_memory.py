"""How much memory there is to work in."""

import psutil


def free_memory(device):
    """Return the bytes that can still be allocated on a device (a name or a torch.device)."""
    if not str(device).startswith("cuda"):
        return psutil.virtual_memory().available
    import torch  # a model that was fitted with torch predicts without it

    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reusable
