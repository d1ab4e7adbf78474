import statistics

import numpy as np
from PIL import Image
from tabulate import tabulate

from apdet.report.comparison import comparison_table, plot_comparison


def row(aps, *, seconds=(60.0, 120.0, 180.0), curves=()):
    return {
        "loss": "ap",
        "base_lr": 0.3,
        "AP": aps,
        "AP50": [ap + 20 for ap in aps],
        "AP75": [ap + 1 for ap in aps],
        "seconds": seconds,
        "curves": curves,
    }


def github_table(*cells):
    headers = ["Training loss", "lr", "AP", "AP50", "AP75", "min"]
    return tabulate([cells], headers, tablefmt="github", disable_numparse=True)


def test_the_table_has_mean_and_deviation_over_seeds():
    aps = [40.0, 43.0, 46.0]
    expected = f"43.0 ± {statistics.stdev(aps):.1f}"
    assert comparison_table([row(aps)]) == github_table(
        "ap", "0.3", expected, "63.0 ± 3.0", "44.0 ± 3.0", "2.0"
    )


def test_the_table_shows_single_and_failed_trainings_and_no_time_of_resumed_ones():
    single = comparison_table([row([40.0], seconds=[None])])
    assert single == github_table("ap", "0.3", "40.0", "60.0", "41.0", "")
    failed = comparison_table([row([], seconds=[])])
    assert failed == github_table("ap", "0.3", "failed", "failed", "failed", "")


def test_the_picture_follows_the_curves_and_failed_trainings_are_left_out(tmp_path):
    def draw(*rows):
        plot_comparison(rows, tmp_path / "comparison.png")
        return np.asarray(Image.open(tmp_path / "comparison.png"))

    two = row([40.0, 50.0], curves=[([9, 19], [20.0, 40.0]), ([9, 19], [30.0, 50.0])])
    one = row([40.0], curves=[([9, 19], [20.0, 40.0])])
    assert not np.array_equal(draw(two), draw(one))
    np.testing.assert_array_equal(draw(one, row([])), draw(one))
