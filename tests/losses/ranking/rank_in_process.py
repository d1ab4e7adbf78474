"""One of several processes that rank together: python rank_in_process.py FOLDER RANK WORLD_SIZE.

Reads FOLDER/cases.pt, a list of (loss name, keywords, [(logits, targets) of each process]), and
writes FOLDER/RANK.pt, a list of (loss, gradient), or of the message of the error that was raised.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from apdet import losses

folder, rank, world_size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
)
results = []
for name, kwargs, shares in torch.load(folder / "cases.pt"):
    logits, targets = shares[rank]
    logits.requires_grad_()
    try:
        loss = getattr(losses, name)(logits, targets, group=dist.group.WORLD, **kwargs)
        (grad,) = torch.autograd.grad(loss, logits)
        results.append((loss.detach(), grad))
    except FloatingPointError as error:
        results.append(str(error))
torch.save(results, folder / f"{rank}.pt")
dist.barrier()  # gloo aborts in a process that another one leaves too early
dist.destroy_process_group()
