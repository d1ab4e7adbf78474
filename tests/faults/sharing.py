"""Several commands in one output folder."""

from faults.checks import Check, has_files
from faults.row import Row, refused, works
from faults.run_folders import endless
from faults.running import Outcome, Running, command_line
from faults.setup import Setup


def start_first(setup: Setup) -> Running:
    """Start an endless training in the same folder. It is killed after the row."""
    before = {key: dict(setup.config[key]) for key in ("MODEL", "SOLVER")}
    endless(setup)
    first = Running(setup, command_line(setup, ()))
    setup.at_the_end.callback(first.kill)
    first.wait_for("iter: 19 ")
    setup.config.update(before)
    return first


def start_and_kill_first(setup: Setup) -> None:
    start_first(setup).kill()


def start_rival(setup: Setup) -> None:
    """Start the same training, and do not wait for anything."""
    setup.rival = Running(setup, command_line(setup, ()))
    setup.at_the_end.callback(setup.rival.kill)


def rival_ends_with(exit_code: int) -> Check:
    def holds(outcome: Outcome) -> None:
        code = outcome.setup.rival.end().exit_code
        assert code == exit_code, f"the other training ended with {code}"
        has_files("results.json", "model_final.pth")(outcome)

    return holds


IN_USE = r"output[\s\S]*(process|pid|running|runs)"

ROWS = (
    Row(
        name="two trainings are started at once in one folder",
        fault=start_rival,
        expect=(works(holds=rival_ends_with(1)), refused(IN_USE, holds=rival_ends_with(0))),
    ),
    Row(
        name="a second training in the folder of a running one",
        fault=start_first,
        expect=(refused(IN_USE),),
    ),
    Row(
        name="--resume in the folder of a running training",
        fault=start_first,
        command=("--resume",),
        expect=(refused(IN_USE),),
    ),
    Row(
        name="--eval-only in the folder of a running training",
        fault=start_first,
        command=("--eval-only",),
        expect=(works(holds=has_files("results.json")),),
    ),
    Row(
        name="--resume in the folder of a training that was killed at its start",
        fault=start_and_kill_first,
        command=("--resume",),
        expect=(works(holds=has_files("results.json")),),
    ),
)
