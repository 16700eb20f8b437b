"""Jobs on a SLURM cluster, without one: what is checked first, what the plugin is told, and what failures say.

SLURM's programs are shell scripts here that answer as the real ones (22.05) did; `make check KIND=slurm` runs those.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import yaml
from conftest import PARAMS, REPOSITORY, make_root, patch_root

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.study import workflow
from rdlib.study.jobs import study_jobs
from scripts import local_slurm

SINFO = 'case "$*" in *%l*) echo "main* 7-00:00:00"; echo "short 30:00"; echo "gpu infinite";; *) echo idle;; esac'
ANSWERS = {"sbatch": "exit 0", "squeue": "exit 0", "scancel": "exit 0", "scontrol": 'echo "MinJobAge  = 300 sec"'}
ANSWERS |= {"sacct": "exit 1", "which": 'command -v "$1"'}  # the plugin asks `which` for programs
DOWN = 'echo "slurm_load_partitions: Unable to contact slurm controller (connect failure)" >&2; exit 1'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A function that puts scripts with these bodies on the PATH, in the place of SLURM's programs."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(**bodies: str) -> Path:
        for name, body in (ANSWERS | {"sinfo": SINFO} | bodies).items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return put


def placement(**resources) -> workflow.WorkflowProfile:
    """params/slurm with these resources changed."""
    given = workflow.WorkflowProfile.read(REPOSITORY / "params/slurm")
    changed = given.settings["default-resources"] | resources
    return workflow.WorkflowProfile(given.folder, given.settings | {"default-resources": changed})


# ---- what is checked before anything is computed


def test_a_cluster_that_takes_the_jobs_is_asked_and_nothing_is_said(slurm, tmp_path, capsys):
    slurm(sacctmgr="echo alpha", sbatch=f'echo "$@" >> {tmp_path}/asked')
    placement(slurm_account="alpha").check({0, 2})
    without, with_gpus = (tmp_path / "asked").read_text().splitlines()
    assert "--test-only" in without and "--test-only" in with_gpus and " -A alpha " in without
    assert "--gpus" not in without and "--gpus=2" in with_gpus
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("resources", "programs"), [
    ({"slurm_partition": "gpu", "runtime": 10**6}, {}),  # without a time limit
    ({"slurm_partition": "short,main"}, {}),
    ({"clusters": "east,west", "slurm_partition": "theirs"}, {"sbatch": "exit 1"}),  # only the plugin knows those
    # `sbatch --test-only` refuses any job where all nodes are down, and a submitted one would wait and run
    ({}, {"sinfo": SINFO.replace("echo idle", 'echo "down*"; echo drained'), "sbatch": "exit 1"}),
])  # fmt: skip
def test_what_slurm_would_take_is_not_refused(slurm, resources, programs):
    slurm(**programs)
    assert placement(**resources).check({0}) is None


@pytest.mark.parametrize(("resources", "programs", "sentence"), [
    ({"slurm_partition": "main,man"}, {}, "has no partition 'man'"),
    ({"slurm_partition": "mian"}, {}, r"has no partition 'mian'.* main, short, gpu.*did you mean 'main'\?"),
    ({}, {"sinfo": 'echo "main 7-00:00:00"'}, "no default partition: name one as slurm_partition.* main"),
    ({"slurm_partition": "short"}, {}, "Jobs ask for 1440 minutes and SLURM's partition short gives 30"),
    ({}, {"sinfo": DOWN}, r"SLURM does not answer \(slurm_load_partitions: Unable to contact"),
    ({}, {"sbatch": 'echo "allocation failure: no such node" >&2; exit 1'},
     r"would refuse .*\(allocation failure: no such node.*-t 1440 --mem 128000 --nodes=1 --cpus-per-task=16"),
    ({}, {"scontrol": 'echo "MinJobAge = 60 sec"'}, r"no accounting \(sacct\) and forgets a finished job after 60 s"),
    ({"slurm_account": "beta"}, {"sacctmgr": "echo alpha"},
     "slurm_account 'beta' .* is none to submit with: The given account beta appears .*alpha"),
])  # fmt: skip
def test_what_slurm_would_not_take_is_one_sentence(slurm, tmp_path, resources, programs, sentence):
    folder = slurm(**programs)
    (folder / "sacctmgr").exists() or (folder / "sacctmgr").symlink_to("/bin/false")
    with pytest.raises(UserError, match=sentence) as raised:
        placement(**resources).check({0})
    assert "\n" not in str(raised.value)


def test_without_slurm_the_command_ends_in_a_sentence_and_starts_nothing(tmp_path, at_root, monkeypatch, capsys):
    root = at_root(make_root(tmp_path))
    shutil.copytree(REPOSITORY / "params/slurm", root / "params/slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(workflow, "follow", lambda *_: pytest.fail("it started the study"))
    assert main(["study", "--profile", PARAMS, "--workflow-profile", "params/slurm"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "there is none here (sbatch, squeue" in error and error.count("\n") == 1


def test_without_the_plugin_the_sentence_says_how_to_get_it(slurm, monkeypatch):
    slurm()
    monkeypatch.setattr(workflow.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="snakemake-executor-plugin-slurm is not installed: `pip install"):
        placement().check({0})


@pytest.mark.parametrize("text", ["jobs: [", "- jobs", "default-resources: [runtime=5]"])
def test_a_broken_workflow_profile_is_one_sentence(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="config.yaml is not"):
        workflow.WorkflowProfile.read(tmp_path)


# ---- what Snakemake and its plugin are told


def test_params_slurm_names_options_that_the_plugin_has():
    from snakemake_executor_plugin_slurm import ExecutorSettings

    known = {field.name for field in dataclasses.fields(ExecutorSettings)}
    settings = yaml.safe_load((REPOSITORY / "params/slurm/config.yaml").read_text())
    ours = {name.removeprefix("slurm-").replace("-", "_") for name in settings if name.startswith("slurm-")}
    assert ours and ours <= known
    assert {"logdir", "jobname_prefix", "status_command"} <= known  # given by WorkflowProfile.arguments


def test_a_gpu_job_asks_for_its_gpus_on_one_node_and_others_for_none():
    """By the plugin's own submission; without --nodes=1 SLURM may take the GPUs of several nodes."""
    words = placement().submission("gpu", 4)
    assert {"--gpus=4", "--nodes=1", "--cpus-per-task=16"} <= set(words) and words[words.index("-p") + 1] == "gpu"
    assert not any(word.startswith("--gpus") for word in placement().submission("main", 0))


def test_logs_go_beside_the_runs_and_squeue_is_asked_where_there_is_no_accounting(slurm, tmp_path):
    runs = tmp_path / "runs/tiny"
    slurm(sacct="exit 1")
    words = placement().arguments(runs, jobs=2)
    told = dict(zip(words[::2], words[1::2], strict=True))
    assert told == {
        "--slurm-logdir": str(runs / "slurm"),
        "--slurm-jobname-prefix": workflow.job_prefix(runs),
        "--slurm-status-command": "squeue",
    }
    slurm(sacct="exit 0")
    assert "--slurm-status-command" not in placement().arguments(runs, jobs=2)
    bare = workflow.WorkflowProfile(tmp_path, {"executor": "slurm", "slurm-logdir": "elsewhere"})
    assert bare.arguments(runs, jobs=3)[:2] == ["--jobs", "3"] and "--slurm-logdir" not in bare.arguments(runs, 3)


def test_a_workflow_profile_of_another_executor_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    other = workflow.WorkflowProfile(tmp_path, {"executor": "kubernetes", "jobs": 4})
    assert other.remote and not other.slurm and other.arguments(tmp_path, 2) == []
    assert not workflow.WorkflowProfile(tmp_path, {"printshellcmds": True}).remote


# ---- what an earlier run left


def test_waiting_jobs_of_an_earlier_run_are_cancelled_and_running_ones_waited_for(slurm, tmp_path, capsys):
    runs = tmp_path / "runs/tiny"
    mine, other = workflow.job_prefix(runs), workflow.job_prefix(tmp_path / "other/tiny")
    once = f"{tmp_path}/asked"
    slurm(
        squeue=f"""echo "9|RUNNING|{other}_1-2"; echo "10|RUNNING|{mine}x"
            [ -e {once}3 ] && exit; [ -e {once}2 ] && echo 3 > {once}3; [ -e {once}1 ] && echo 2 > {once}2
            [ -e {once}1 ] || echo "8|PENDING|{mine}_1-2"; echo "7|RUNNING|{mine}_1-2"; echo 1 > {once}1""",
        scancel=f'echo "$@" >> {tmp_path}/cancelled',
    )
    workflow.clear_earlier_jobs(runs, seconds=0.01)
    assert (tmp_path / "cancelled").read_text() == "--state=PENDING 8\n"
    assert capsys.readouterr().out == (
        "Waiting for jobs of an earlier run that are still at work (`scancel 7` ends them).\n"
    )
    assert workflow.jobs_of(runs) == {}


# ---- failures


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """The jobs of the tiny study."""
    root = make_root(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch_root(patch, root)
        return study_jobs(PARAMS, [0])


def follow(jobs, folder: Path, code: str, placed=None) -> list[workflow.Failure]:
    """The failures that are heard of a process that runs this code in Snakemake's place."""
    with (folder / "lock").open("w") as lock:
        return workflow.follow([sys.executable, "-c", code], jobs, 0, folder, {}, lock.fileno(), placed)


def written(job, message: str, log: Path) -> str:
    """What Snakemake 9 writes of a job that failed on a workflow."""
    return f"""\
[Wed Nov 25 07:45:10 2026]
Error in rule {job.name}:
    message: {message}For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 1
    output: x/.jobs/{job.name}
    log: {job.executed}, {log} (check log file(s) for error details)
    shell:
        python -m rdlib execute
        (command exited with non-zero exit code)
    external_jobid: 2
Finished jobid: 4 (Rule: somewhere-else)
"""


def ended(state: str) -> str:
    """The plugin's message of a job that ended in a state, as without accounting."""
    return f"SLURM-job '2' failed, SLURM status is: '{state}'. Detailed failure reason unavailable."


REFUSED = """SLURM sbatch failed. The error message was 'sbatch: error: Batch job submission failed: Job violates
accounting/QOS policy'.
    sbatch call:
        sbatch --parsable
"""


NODE = "SLURM-job '2' failed due to a node failure, SLURM status is: 'NODE_FAIL'. Failed"


@pytest.mark.parametrize(("message", "sentence"), [
    (ended("TIMEOUT"), "SLURM ended it at its time limit (job 2): raise runtime in the workflow profile"),
    (ended("OUT_OF_MEMORY"), "it needed more memory than it had asked SLURM for (job 2): raise mem_mb"),
    (ended("FAILED"), "no message from its notebook (SLURM's job 2)"),
    (NODE, "its node failed (SLURM's"),
    (REFUSED, "SLURM did not take it (sbatch: error: Batch job submission failed: Job violates accounting/QOS policy)"),
    ("Job submission failed with exception: no such thing\n    ", "it could not be submitted (no such thing)"),
    ("None\n    ", "no message"),
])  # fmt: skip
def test_a_failed_job_is_named_with_its_reason_and_its_log(jobs, tmp_path, message, sentence):
    job, log = jobs[3], tmp_path / "slurm/2.log"
    for path, text in ((log, "slurmstepd: error"), (job.executed.with_suffix(".error"), "of an earlier run\n")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = f"import sys; sys.stdout.write({written(job, message, log)!r}); sys.exit(1)"
    (failed,) = follow(jobs, tmp_path, code)
    told = failed.sentence(tmp_path)
    assert told.startswith(f"FAILED {job.name}: {sentence}") and "an earlier run" not in told
    assert told.endswith(f"see {os.path.relpath(job.executed, tmp_path)} and slurm/2.log")


def test_a_job_that_a_second_attempt_finishes_has_not_failed(jobs, tmp_path):
    """As with `retries` in a workflow profile."""
    lines = written(jobs[2], ended("NODE_FAIL"), tmp_path) + f"Finished jobid: 1 (Rule: {jobs[2].name})\n"
    assert follow(jobs, tmp_path, f"print({lines!r})") == []


@pytest.fixture
def interruptible():
    """SIGINT as in a terminal: a shell has its background jobs ignore it, and tests may run in one."""
    before = {one: signal.signal(one, signal.default_int_handler) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_cancels_the_jobs_in_slurm(jobs, tmp_path, slurm, interruptible, name):
    prefix = workflow.job_prefix(tmp_path)
    slurm(squeue=f'echo "7|RUNNING|{prefix}_1"; echo "9|RUNNING|other_1"', scancel=f'echo "$@" > {tmp_path}/cancelled')
    code = f"import os, signal, time; os.kill(os.getppid(), signal.{name}); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt, match="Interrupted: what was finished is kept"):
        follow(jobs, tmp_path, code, workflow.Placed(tmp_path))
    assert (tmp_path / "cancelled").read_text() == "7\n"


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_sigterm_reaches_snakemake_as_ctrl_c_does(jobs, tmp_path, interruptible, handler):
    """A container's end sends it to the study alone; at SIGTERM Snakemake would wait for its jobs."""
    signal.signal(signal.SIGINT, handler)
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "try:\n"
        "    os.kill(os.getppid(), signal.SIGTERM)\n"
        "    time.sleep(20)\n"
        "except KeyboardInterrupt:\n"
        f"    open({str(tmp_path / 'ended')!r}, 'w')"
    )
    with pytest.raises(KeyboardInterrupt, match="Interrupted: what was finished is kept"):
        follow(jobs, tmp_path, code)
    assert (tmp_path / "ended").is_file()


SUBMITTED = "Job 1 has been submitted with SLURM jobid 2 (log: x)."


@pytest.mark.parametrize(("said", "squeue", "lost"), [
    (SUBMITTED, "exit 0", True),
    ("Building DAG of jobs...", "exit 0", False),  # it may take its time before it submits any
    (SUBMITTED, 'echo "2|RUNNING|{prefix}_1"', False),
    (SUBMITTED, "exit 1", False),  # SLURM does not answer
])  # fmt: skip
def test_a_snakemake_that_waits_for_jobs_that_slurm_has_not_is_ended(jobs, tmp_path, slurm, said, squeue, lost):
    slurm(squeue=squeue.format(prefix=workflow.job_prefix(tmp_path)))
    placed = workflow.Placed(tmp_path, seconds=0.3, interval=0.1)
    code = f"import time; print({said!r}, flush=True); time.sleep({60 if lost else 1.0})"
    assert follow(jobs, tmp_path, code, placed) == [] and placed.lost is lost


def test_a_study_whose_snakemake_lost_its_jobs_goes_on(tmp_path, at_root, monkeypatch, capsys):
    root = at_root(make_root(tmp_path))
    shutil.copytree(REPOSITORY / "params/slurm", root / "params/slurm")
    given = []

    def lose_once(*arguments):
        given.append(arguments)
        arguments[-1].lost = len(given) == 1
        return []

    monkeypatch.setattr(workflow, "follow", lose_once)
    monkeypatch.setattr(workflow.WorkflowProfile, "check", lambda *a: None)
    monkeypatch.setattr(workflow, "clear_earlier_jobs", lambda *a: None)
    assert main(["study", "--profile", PARAMS, "--workflow-profile", "params/slurm"]) == 0
    assert len(given) == 2 and given[0][-1] is not given[1][-1]
    assert "Snakemake had lost sight of its jobs in SLURM: it is started again." in capsys.readouterr().out


# ---- the cluster of `make check KIND=slurm`


def test_what_is_missing_is_said_where_it_cannot_be_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local_slurm, "DAEMON_FOLDERS", ())
    assert set(local_slurm.missing()) == set(local_slurm.PROGRAMS)
    with pytest.raises(UserError, match=r"no SLURM here \(munged, .*\) and no apt-get"):
        local_slurm.install()
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2; exit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setattr(local_slurm.os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match="only root can install it: run `sudo apt-get install slurm-wlm munge`"):
        local_slurm.install()
    monkeypatch.setattr(local_slurm.os, "geteuid", lambda: 0)
    with pytest.raises(UserError, match=r"apt-get -q .* update` failed \(E: Unable to locate package\)"):
        local_slurm.install()
