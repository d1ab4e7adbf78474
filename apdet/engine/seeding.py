"""Seeds that give a resumed training the random numbers of an uninterrupted one."""

from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from apdet.data.stream import derived_seed


class StepSeeder(HookBase):
    """Sets the seed of each step in each process, for models that draw random numbers."""

    def __init__(self, seed: int):
        """Set the seed of the training. A resumed training takes it from its checkpoint."""
        self.seed = seed

    def before_step(self) -> None:
        seed_all_rng(derived_seed(self.seed, self.trainer.iter, comm.get_rank()))

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        seed = state_dict["seed"]
        if type(seed) is not int or not -(2**63) <= seed < 2**63:
            raise ValueError(f"its seed is {seed!r}, not an integer of 64 bits")
        self.seed = seed
