import pytest
import torch
from host_waits import HostWaits

x = torch.tensor([3, 0, 1])


@pytest.mark.parametrize(
    "waiting",
    [
        lambda: x[0].item(),
        lambda: x.tolist(),
        lambda: int(x.sum()),
        lambda: [0, 1][x[2]],
        lambda: 0 if x.any() else 1,
        lambda: x.nonzero(),
        lambda: torch.nonzero(x),
        lambda: torch.where(x > 0),
        lambda: x[x > 0],
        lambda: x.clone().__setitem__(x > 0, 1),
        lambda: x.masked_select(x > 0),
        lambda: x.bincount(),
        lambda: x.unique(),
        lambda: x.repeat_interleave(x),
        lambda: x.cpu(),
        lambda: x.to("cpu"),
        lambda: x.new_tensor([1]),
        lambda: torch.tensor([1, 2]),
    ],
)
def test_what_waits_is_recorded(waiting):
    with HostWaits() as waits:
        waiting()
    assert len(waits.calls) == 1


def test_what_does_not_wait_is_not():
    with HostWaits() as waits:
        x.clone().masked_fill_(x > 0, 1)[x.clamp(max=2)]
        torch.where(x > 0, x, 0).to(torch.float64)
        x.repeat_interleave(x, output_size=4)
        len(x), x.shape, x.device, torch.arange(3), x.new_zeros(3), x.sort()
    assert waits.calls == []
