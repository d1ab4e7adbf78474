"""`digits`: a detection data set of handwritten digits over photographs, made in seconds.

scikit-learn ships 1,797 scans of handwritten digits, 8 x 8 pixels each, and two photographs. An
image is a crop of a photograph with scans of several sizes and colours drawn on it. The images are
written both in PASCAL VOC's layout (JPEGImages, Annotations, ImageSets/Main) and in COCO's format
(coco_train.json, coco_test.json). The two splits share no scan and no part of a photograph.
"""

from apdet.data.digits.command import main
from apdet.data.digits.drawing import draw_image, split_sources
from apdet.data.digits.writing import CLASSES, write_digits

__all__ = ["CLASSES", "draw_image", "main", "split_sources", "write_digits"]
