"""Says in a few words what was predicted."""

from apdet.inference.progress import Progress
from apdet.inference.selection import Selection
from apdet.report.selection import score_text


def summarise(
    progress: Progress, selection: Selection, best_threshold: float | None, images_per_second: float
) -> str:
    """Count images and detections. If the threshold hides all of them, say what would not.

    Args:
        progress: holds the predictions.
        selection: which detections are kept.
        best_threshold: the threshold with the best F1, if it is known.
        images_per_second: the speed; 0: no image was left to do.
    """
    num_detections, highest = 0, None
    for entry in progress.entries():
        num_detections += len(entry["results"])
        if entry["highest"] is not None:
            highest = max(entry["highest"], highest or 0.0)
    text = (
        f"{num_detections} detections with a score of at least {score_text(selection.threshold)} "
        f"in {len(progress)} image{'s' * (len(progress) != 1)}"
    )
    if images_per_second:
        text += f", {images_per_second:.1f} images per second"
    if num_detections:
        return text
    if highest is None:
        return f"{text}. The model found nothing, whatever the threshold"
    text += f". The threshold hides all: the highest score is {score_text(highest)}"
    if best_threshold is None:
        return f"{text}; set --threshold lower"
    return f"{text}, and the best threshold is {score_text(best_threshold)} (--threshold best)"
