from small_datasets import make_image_fixture, register  # noqa: F401  fixtures
