"""Signals that end a command."""

import signal
import time
from collections.abc import Callable

import torch
from faults.checks import Check, ends_like
from faults.fault import both
from faults.row import Expected, Row
from faults.run_folders import endless
from faults.running import Outcome, Running, run
from faults.setup import Setup

WORD = {signal.SIGTERM: "SIGTERM|terminat", signal.SIGINT: "SIGINT|Ctrl-C|interrupt"}
CODE = {signal.SIGTERM: 143, signal.SIGINT: 130}


def with_workers(setup: Setup) -> None:
    setup.set("DATALOADER.NUM_WORKERS", 2)


def many_test_images(setup: Setup, times: int = 1000) -> None:
    """The pictures are tested many times, which takes many seconds."""
    setup.config["DATASETS"]["REGISTER"][1]["json"] = "many.json"
    before = setup.annotations.read_bytes()

    def repeat(content: dict) -> None:
        for number in range(1, times):
            for kind, keys in (("images", ["id"]), ("annotations", ["id", "image_id"])):
                content[kind] += [
                    {**entry, **{key: entry[key] + 1000 * number for key in keys}}
                    for entry in content[kind]
                    if entry["id"] < 1000
                ]

    setup.edit_json(repeat)
    setup.annotations.rename(setup.folder / "many.json")
    setup.annotations.write_bytes(before)


def send(number: int, at: str = r"iter: 19 ", *, to_all: bool = True) -> Callable[[Running], None]:
    """Send a signal when a text is printed."""

    def during(running: Running) -> None:
        running.wait_for(at)
        (running.signal_all if to_all else running.signal)(number)

    return during


def send_again(number: int) -> Callable[[Running], None]:
    """Send a signal in a long step, and again until the process ends."""

    def during(running: Running) -> None:
        running.wait_for("sleeping in iteration")
        while running.is_alive():
            running.signal_all(number)
            time.sleep(0.2)

    return during


def resumes_to_the_same_bits(outcome: Outcome) -> None:
    """Three more iterations give what an uninterrupted training gives."""
    name = (outcome.output / "last_checkpoint").read_text()
    saved = torch.load(outcome.output / name, weights_only=True)["iteration"]
    assert saved >= 19, f"{name} is of iteration {saved}"
    keys = {"SOLVER.MAX_ITER": saved + 4}
    resumed = run(outcome.setup, "--resume", "SOLVER.MAX_ITER", str(saved + 4))
    assert resumed.exit_code == 0, f"resumed: exit code {resumed.exit_code}"
    ends_like(keys)(outcome)


def has_a_checkpoint(outcome: Outcome) -> None:
    name = (outcome.output / "last_checkpoint").read_text()
    torch.load(outcome.output / name, weights_only=True)


def ended_by(number: int, holds: Check | None = None) -> Expected:
    return Expected(exit_code=CODE[number], says=WORD[number], holds=holds)


def name_of(number: int) -> str:
    return signal.Signals(number).name


TWO_PROCESSES = ("--num-processes", "2", "--device", "cpu", "SOLVER.IMS_PER_BATCH", "4")

SIGNALS = (
    *[
        Row(
            name=f"{name_of(number)} in the training{where}",
            fault=both(endless, change),
            during=send(number),
            expect=(ended_by(number, holds),),
            slow=slow,
        )
        for number, where, change, holds, slow in [
            (signal.SIGTERM, "", lambda setup: None, resumes_to_the_same_bits, False),
            (signal.SIGINT, "", lambda setup: None, has_a_checkpoint, False),
            (signal.SIGTERM, ", with data-loader workers", with_workers, has_a_checkpoint, False),
            (signal.SIGINT, ", with data-loader workers", with_workers, has_a_checkpoint, True),
        ]
    ],
    *[
        Row(
            name=f"{name_of(number)} in the final evaluation",
            fault=many_test_images,
            during=send(number, "Start inference on"),
            expect=(ended_by(number, has_a_checkpoint),),
        )
        for number in CODE
    ],
    Row(
        name="SIGTERM in --eval-only",
        fault=many_test_images,
        command=("--eval-only",),
        during=send(signal.SIGTERM, "Start inference on"),
        expect=(ended_by(signal.SIGTERM),),
    ),
    Row(
        name="SIGTERM before the training begins",
        fault=endless,
        during=send(signal.SIGTERM, "Device: cpu"),
        expect=(ended_by(signal.SIGTERM),),
    ),
    Row(
        name="SIGINT while Python imports modules",
        fault=endless,
        during=send(signal.SIGINT, r"import time:.* torch\.nn\.functional"),
        new_interpreter=True,
        expect=(Expected(exit_code=130, says="."),),
        slow=True,
    ),
    *[
        Row(
            name=f"a second {name_of(number)} during a long step",
            fault=both(endless, lambda setup: setattr(setup, "plug_in", "faults.slow_step")),
            during=send_again(number),
            expect=(ended_by(number),),
        )
        for number in CODE
    ],
    *[
        Row(
            name=f"{name_of(number)} to {whom}, two processes",
            fault=both(endless, with_workers),
            command=TWO_PROCESSES,
            during=send(number, to_all=whom == "all"),
            new_interpreter=True,
            limit=120,
            expect=(ended_by(number, has_a_checkpoint),),
            slow=True,
        )
        for number, whom in [
            (signal.SIGTERM, "all"),
            (signal.SIGINT, "all"),
            (signal.SIGTERM, "the launcher alone"),
        ]
    ],
)


ROWS = SIGNALS
