"""Keys that a YAML file gives twice."""

import yaml
from faults.fault import Fault
from faults.row import Row, as_flawless, refused
from faults.setup import Setup


def edit_text(old: str, new: str) -> Fault:
    """Replace a part of the config file. It must be there."""

    def fault(setup: Setup) -> None:
        text = yaml.safe_dump(setup.config, sort_keys=False)
        if old not in text:
            raise ValueError(f"{text} does not hold {old!r}")
        setup.config_text = text.replace(old, new, 1)

    return fault


def duplicate_in_base(setup: Setup) -> None:
    base = setup.folder / "base.yaml"
    base.write_text(f"_BASE_: {setup.config['_BASE_']}\nSEED: 1\nSEED: 2\n")
    setup.set("_BASE_", "base.yaml")


AT_END = "\nTEST:\n"  # a place in the text of the config
AGAIN = "\nSOLVER: {MAX_ITER: 1, IMS_PER_BATCH: 4, REFERENCE_BATCH_SIZE: 0}\nTEST:\n"

ROWS = (
    *[
        Row(name=name, fault=edit_text(old, new), expect=(refused(rf"config\.yaml[\s\S]*{key}"),))
        for name, old, new, key in [
            ("a key of YAML twice: SOLVER", AT_END, AGAIN, "SOLVER"),
            (
                "a key of YAML twice, in a mapping",
                "  MAX_ITER: 2\n",
                "  MAX_ITER: 2\n  MAX_ITER: 3\n",
                "MAX_ITER",
            ),
            (
                "a key of YAML twice, in quotes",
                AT_END,
                AGAIN.replace("SOLVER", '"SOLVER"'),
                "SOLVER",
            ),
            (
                "a key of YAML twice, in braces",
                AT_END,
                "\nSEED: 1\nVIS_PERIOD: 0\nSEED: 1\nTEST:\n",
                "SEED",
            ),
            (
                "a key of YAML twice, in an entry of DATASETS.REGISTER",
                "name: tr\n",
                "name: tr\n    name: tr\n",
                "name",
            ),
            (
                "a key of YAML twice, in the arguments of the loss",
                "\n  DEVICE: cpu\n",
                "\n  DEVICE: cpu\n  CLS_LOSS: {KWARGS: {delta: 1.0, delta: 2.0}}\n",
                "delta",
            ),
        ]
    ],
    Row(
        name="a key of YAML twice, in a base",
        fault=duplicate_in_base,
        expect=(refused(r"base\.yaml[\s\S]*SEED"),),
    ),
    Row(
        name="a key of YAML twice, --dry-run",
        fault=edit_text(AT_END, AGAIN),
        command=("--dry-run",),
        expect=(refused(r"config\.yaml[\s\S]*SOLVER"),),
    ),
    Row(
        name="a key of YAML that overrides one of a merged mapping, which is no fault",
        fault=edit_text(
            AT_END,
            "\nVERSION: 2\nTEST:\n  <<: &test {EVAL_PERIOD: 5, DETECTIONS_PER_IMAGE: 100}\n",
        ),
        expect=(as_flawless(),),
    ),
)
