"""Folders of trainings whose last checkpoint is broken, or not known."""

from faults.checkpoint_edits import (
    drop,
    edit_file,
    empty,
    poison,
    poison_momentum,
    rot,
    truncate,
)
from faults.checks import ends_like
from faults.fault import both
from faults.row import Row, refused, works
from faults.run_folders import (
    FINISHED,
    RESUME,
    finished,
    in_output,
    interrupted,
    keep_only,
    tag,
    without,
)

SAME_BITS = ends_like(FINISHED)
FALLS_BACK = works(warns=r"model_0000003\.pth", holds=SAME_BITS)
USES_OLDER = works(warns=r"model_0000001\.pth", holds=SAME_BITS)
NAMES_BROKEN = refused(r"model_0000003\.pth[\s\S]*model_0000001\.pth")

TAGS = (
    *[
        Row(
            name=f"last_checkpoint {name}, --resume",
            fault=both(interrupted, change),
            command=RESUME,
            expect=(expected,),
            slow=slow,
        )
        for name, change, expected, slow in [
            ("is empty", tag(""), FALLS_BACK, False),
            ("is truncated", tag("model_00"), FALLS_BACK, False),
            ("is gone", without("last_checkpoint"), FALLS_BACK, False),
            ("names a file that is gone", tag("model_0000099.pth"), FALLS_BACK, True),
            ("holds zeros", tag("\0" * 17), FALLS_BACK, True),
            ("ends in a line break", tag("model_0000003.pth\r\n"), works(holds=SAME_BITS), True),
        ]
    ],
    *[
        Row(
            name=f"{name}, started without --resume",
            fault=both(finished, change),
            expect=(refused("--resume"),),
        )
        for name, change in [
            ("last_checkpoint is gone", without("last_checkpoint")),
            ("only model_final.pth is left", keep_only("model_final.pth")),
            ("only a periodic checkpoint is left", keep_only("model_0000003.pth")),
            ("last_checkpoint is empty", tag("")),
        ]
    ],
)

LAST_FILE = (
    *[
        Row(
            name=f"the last checkpoint {name}, --resume",
            fault=both(interrupted, in_output("model_0000003.pth", damage)),
            command=RESUME,
            expect=(USES_OLDER, NAMES_BROKEN),
            slow=slow,
        )
        for name, damage, slow in [
            ("is truncated", truncate, False),
            ("is empty", empty, True),
            ("has 100 rotten bytes", rot, False),
            (
                "has nan in a weight",
                lambda path: edit_file(path, poison("cls_score.weight")),
                False,
            ),
            ("has nan in a buffer", lambda path: edit_file(path, poison("running_mean")), True),
            ("has nan in the optimizer", lambda path: edit_file(path, poison_momentum), True),
        ]
    ],
    Row(
        name="all checkpoints are truncated, --resume",
        fault=both(
            interrupted,
            in_output("model_0000003.pth", truncate),
            in_output("model_0000001.pth", truncate),
        ),
        command=RESUME,
        expect=(refused(r"model_000000[13]\.pth"),),
    ),
    Row(
        name="the last checkpoint has no state of the trainer, --resume",
        fault=both(
            interrupted, in_output("model_0000003.pth", lambda p: edit_file(p, drop("trainer")))
        ),
        command=RESUME,
        expect=(works(warns="optimi[sz]er|trainer|state"), refused("model_0000003")),
    ),
)

ROWS = (*TAGS, *LAST_FILE)
