"""Seeds by which a resumed training draws what an uninterrupted one would have drawn."""

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from apdet.data.stream import derived_seed


class StepSeeder(HookBase):
    """Seeds each step on its own, in each process, for what a model draws: RoIs, say."""

    def __init__(self, seed: int):
        """Args: ``seed`` of the training, which a resumed one takes from its checkpoint."""
        self.seed = seed

    def before_step(self):
        seed_all_rng(derived_seed(self.seed, self.trainer.iter, comm.get_rank()))

    def state_dict(self):
        return {"seed": self.seed}

    def load_state_dict(self, state_dict):
        self.seed = state_dict["seed"]
