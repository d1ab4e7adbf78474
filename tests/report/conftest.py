from small_datasets import (  # noqa: F401  fixtures
    evaluate,
    make_image_fixture,
    make_output_fixture,
    picture,
    register,
)
