import pytest

from apdet.engine.world import first_host, world_of_environment
from apdet.errors import UserError

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
# As srun sets them in the third of four tasks on two nodes.
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "gpu[07,09-12]",
}


def test_a_process_of_torchrun_knows_its_place():
    world = world_of_environment(TORCHRUN)
    assert (world.rank, world.size, world.local_rank, world.local_size) == (3, 4, 1, 2)
    assert (world.address, world.port, world.launcher) == ("node1", 29500, "torchrun")


def test_the_first_process_listens_only_if_torchrun_does_not():
    first = {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}
    assert not world_of_environment(first).hosts_store
    del first["TORCHELASTIC_USE_AGENT_STORE"]
    assert world_of_environment(first).hosts_store
    assert not world_of_environment({**first, "RANK": "1", "LOCAL_RANK": "1"}).hosts_store


def test_a_process_of_srun_knows_its_place():
    world = world_of_environment(SLURM)
    assert (world.rank, world.size, world.local_rank, world.local_size) == (2, 4, 0, 2)
    assert (world.address, world.launcher, world.hosts_store) == ("gpu07", "srun", False)
    assert 1024 < world.port < 32768


def test_the_port_of_srun_is_the_same_for_a_job_and_another_for_the_next():
    port = world_of_environment(SLURM).port
    assert world_of_environment({**SLURM, "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}).port == port
    assert world_of_environment({**SLURM, "SLURM_JOB_ID": "4712"}).port != port
    assert world_of_environment({**SLURM, "MASTER_PORT": "5000"}).port == 5000


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1"},
        # The batch script itself, which is not a step.
        {name: value for name, value in SLURM.items() if "STEP" not in name},
    ],
)
def test_other_processes_are_alone(environment):
    assert world_of_environment(environment) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({**TORCHRUN, "MASTER_PORT": ""}, "not MASTER_PORT: start the processes by torchrun"),
        ({**TORCHRUN, "RANK": "one"}, "RANK is 'one', but a number"),
        ({**TORCHRUN, "WORLD_SIZE": "many"}, "WORLD_SIZE is 'many', but a number"),
        ({**TORCHRUN, "RANK": "5"}, "rank 5, but there are 4"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "3"}, "Start the same number on each machine"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "0"}, "Start the same number on each machine"),
        ({**TORCHRUN, "MASTER_PORT": "99999"}, "99999 is not a port"),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "3,1"}, "different numbers.*--ntasks-per-node"),
        ({**SLURM, "SLURM_LOCALID": "1"}, "with consecutive ranks"),
    ],
)
def test_variables_that_cannot_be_are_refused(environment, message):
    with pytest.raises(UserError, match=message):
        world_of_environment(environment)


@pytest.mark.parametrize(
    ("node_list", "host"),
    [
        ("gpu7", "gpu7"),
        ("gpu7,gpu3", "gpu7"),
        ("gpu[03-05,09],login1", "gpu03"),
        ("rack[2-3]-n[10,11].site", "rack2-n10.site"),
    ],
)
def test_the_first_host_of_a_node_list(node_list, host):
    assert first_host(node_list) == host
