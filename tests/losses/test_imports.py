import subprocess
import sys


def test_the_losses_need_no_detectron2():
    code = "import sys; sys.modules['detectron2'] = None; import apdet.losses"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_models_without_detectron2_say_how_to_get_it():
    code = "import sys; sys.modules['detectron2'] = None; import apdet.modeling"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: apdet.modeling needs Detectron2" in done.stderr
    assert "tools/setup_env.sh" in done.stderr
