from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import nas
from nas import registry

TINY = ("--set", "channels=4", "--set", "cells=1", "--set", "epochs=1")
CELLS = ("--space", "nasbench201", "--task", "digits", *TINY)


@pytest.mark.parametrize("plural", registry.KINDS.values())
def test_list_gives_names_with_one_line_descriptions(nas_command, plural):
    rows = nas_command.json("list", plural)
    assert rows
    for row in rows:
        assert row["name"] in nas_command("list", plural)
        assert row["description"].strip().count("\n") == 0
        assert len(row["description"]) > 10


def test_help_and_list_import_neither_torch_nor_optuna():
    script = (
        "import sys\n"
        "from nas import cli\n"
        "sys.argv = ['nas', *sys.argv[1:]]\n"
        "try:\n    cli.main()\n"
        "except SystemExit:\n    pass\n"
        "assert not {'torch', 'optuna', 'numpy', 'networkx'} & set(sys.modules)"
    )
    for arguments in (["--help"], ["search", "--help"], ["list", "spaces"], ["--version"]):
        subprocess.run(
            [sys.executable, "-c", script, *arguments], check=True, stdout=subprocess.DEVNULL
        )


def test_version(nas_command):
    assert nas.__version__ in nas_command("--version")


def test_sample_is_seeded_and_reads_back(nas_command):
    drawn = nas_command("sample", "--space", "kan", "-n", 5, "--seed", 3).splitlines()
    assert drawn == nas_command("sample", "--space", "kan", "-n", 5, "--seed", 3).splitlines()
    assert drawn != nas_command("sample", "--space", "kan", "-n", 5).splitlines()
    space = registry.make("space", "kan")
    assert [str(space.parse(text)) for text in drawn] == drawn


def test_sample_as_json_tells_what_it_costs(nas_command):
    row = nas_command.json("sample", "--space", "nasbench201", "--set", "cells=1")[0]
    assert row["nasbench201"].startswith("|")
    assert row["params"] > 0
    assert row["macs"] > 0


def test_sample_fits_the_task(nas_command):
    small = nas_command.json("sample", "--space", "kan", "--task", "function_fit")[0]
    large = nas_command.json("sample", "--space", "kan", "--task", "digits")[0]
    assert small["params"] < large["params"]


def test_describe_lists_settings(nas_command):
    assert "population_size = 20" in nas_command("describe", "searcher", "regularized_evolution")
    assert "epochs" in nas_command.json("describe", "evaluator", "training")["settings"]


def test_search_show_resume_train_and_export(nas_command):
    nas_command("search", "--study", "one", *CELLS, "--trials", 2)
    assert "Best: trial" in nas_command.out
    assert "Test of trial" in nas_command.out
    shown = nas_command.json("show", "one")
    assert [t["number"] for t in shown["trials"]] == [0, 1]
    best = next(t for t in shown["trials"] if t["best"])
    assert set(best["test"]) == {"accuracy", "loss"}

    again = nas_command.json("search", "--study", "one", *CELLS, "--trials", 2)
    assert [t["architecture"] for t in again["trials"]] == [t["architecture"] for t in shown["trials"]]
    longer = nas_command.json("resume", "one", "--trials", 3)
    assert [t["architecture"] for t in longer["trials"]][:2] == [
        t["architecture"] for t in shown["trials"]
    ]
    assert len(longer["trials"]) == 3

    file = next(t["file"] for t in longer["trials"] if t["best"])
    assert "params" in nas_command("show", file, "--svg", "best.svg")
    assert Path("best.svg").read_text().startswith("<svg")
    nas_command("train", file, "--set", "channels=6", "--set", "epochs=1", "-o", "wide.json")
    wide = nas.load(Path("wide.json"))
    assert str(wide.architecture) == str(nas.load(Path(file)).architecture)
    assert wide.space.settings["channels"] == 6
    nas_command("export", "wide.json", "--to", "torch-export")
    assert Path("wide.pt2").is_file()


def test_a_study_file_runs_and_what_ran_is_written_as_one(nas_command):
    Path("study.toml").write_text(
        """
        load = []
        [study]
        name = "from-file"
        trials = 2
        [space]
        name = "kan"
        widths = [4]
        depths = [1]
        [task]
        name = "function_fit"
        num_train = 64
        [evaluator]
        name = "training"
        epochs = 1
        optimizer = "adam"
        [[objective]]
        metric = "rmse"
        direction = "minimize"
        [limits]
        params = 1e6
        """
    )
    ran = nas_command.json("search", "study.toml")
    assert ran["objectives"] == [{"metric": "rmse", "direction": "minimize"}]
    written = Path("results/studies/from-file/study.toml")
    assert tomllib.loads(written.read_text())["space"]["widths"] == [4]
    again = nas_command.json("search", written)
    assert again["trials"] == ran["trials"]


def test_several_evaluators_and_objectives_make_a_pareto_search(nas_command):
    found = nas_command.json(
        "search", *CELLS, "--evaluator", "complexity", "--evaluator", "training",
        "--objective", "accuracy:max", "--objective", "params:min", "--trials", 4,
    )  # fmt: skip
    by_number = {t["number"]: t["metrics"] for t in found["trials"]}
    assert {"accuracy", "params"} <= by_number[0].keys()
    front = [by_number[n] for n in found["best"]]
    for one in front:
        assert not any(m["accuracy"] > one["accuracy"] and m["params"] < one["params"] for m in front)


def test_a_limit_is_kept(nas_command):
    found = nas_command.json(
        "search", *CELLS[:-2], "--evaluator", "complexity", "--limit", "params=9e3", "--trials", 8,
        "--objective", "macs:maximize",
    )  # fmt: skip
    assert all(t["metrics"]["params"] <= 9e3 for t in found["trials"])


def test_a_part_of_ones_own_is_loaded_from_a_file(nas_command):
    Path("mine.py").write_text(
        '''
import numpy as np
from nas import registry
from nas.arrays import classification

@registry.task("mine")
def mine():
    """Blobs of my own."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    return classification("mine", rng.normal(size=(300, 2)) + 4 * labels[:, None], labels)
'''
    )
    rows = nas_command.json("--load", "mine.py", "list", "tasks")
    assert {"name": "mine", "description": "Blobs of my own."} in rows
    found = nas_command.json(
        "--load", "mine.py", "search", "--study", "m", "--space", "kan", "--task", "mine",
        "--set", "epochs=2", "--trials", 2,
    )  # fmt: skip
    assert len(found["trials"]) == 2
    assert len(nas_command.json("resume", "m", "--trials", 3)["trials"]) == 3


def test_bare_settings_that_two_parts_have_are_asked_about(nas_command):
    Path("two.py").write_text(
        """
from nas import registry
from search_spaces.kan import kan

@registry.space("seeded_kan")
def seeded_kan(seed: int = 0):
    '''A KAN with a setting that the task has too.'''
    return kan()
"""
    )
    said = nas_command.refused(
        "--load", "two.py", "sample", "--space", "seeded_kan", "--task", "function_fit",
        "--set", "seed=1",
    )  # fmt: skip
    assert "space.seed" in said
    assert "task.seed" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("search", "--space", "nasbench2O1"), 'did you mean "nasbench201"'),
        (("search", "--space", "kan", "--task", "digit"), 'did you mean "digits"'),
        (("search", "--space", "kan", "--searcher", "evolution"), "regularized_evolution"),
        (("search", "--space", "kan", "--evaluator", "trainin"), 'did you mean "training"'),
        (("search", "--space", "nasbench201", "--task", "function_fit"), "is not an image"),
        (("search", "--space", "kan", "--set", "widht=3"), "space.widths"),
        (("search", "--space", "kan", "--set", "epochs=many"), "a whole number"),
        (("search", "--space", "kan", "--set", "epochs=0"), "epochs"),
        (("search", "--space", "kan", "--set", "novalue"), "KEY=VALUE"),
        (("search", "--space", "kan", "--objective", "accuracy"), "METRIC:DIRECTION"),
        (("search", "--space", "kan", "--objective", "acuracy:max"), 'did you mean "accuracy"'),
        (("search", "--space", "kan", "--limit", "params"), "METRIC=NUMBER"),
        (("search", "--space", "kan", "--limit", "parms=3"), 'did you mean "params"'),
        (("search", "--space", "kan", "--pruner", "medan"), 'did you mean "median"'),
        (("search", "--space", "kan", "--storage", "nowhere"), "journal:FILE"),
        (("search", "--space", "kan", "--storage", "sqlite:////no/where/x.db"), "cannot be opened"),
        (("search", "--space", "kan", "--study", "a/b"), "no study name"),
        (("search", "--space", "kan", "--device", "cuda:9"), "cuda"),
        (("search", "missing.toml"), "cannot be read"),
        (("resume", "nothing"), "is not a study"),
        (("show", "nothing"), "is not a study"),
        (("show", "nothing.json"), "cannot be read"),
        (("train", "nothing.json"), "cannot be read"),
        (("export", "nothing.json", "--to", "onnx"), "cannot be read"),
        (("compare", "nothing.toml"), "cannot be read"),
        (("data", "fashon_mnist"), 'did you mean "fashion_mnist"'),
        (("--load", "nothing.py", "list", "tasks"), "no file"),
        (("search", "--space", "kan", "--task", "arrays", "--set", "path=no.npz"), "no.npz"),
        (("search", "--space", "kan", "--trials", "0"), "trials"),
        (("describe", "space", "kam"), 'did you mean "kan"'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_sentence_and_exit_code_2(nas_command, arguments, said):
    assert said in nas_command.refused(*arguments)
    assert not list(Path().glob("results/studies/*/study.journal"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[space\n", "not valid TOML"),
        ("[spaces]\nname = 'kan'", 'did you mean "space"'),
        ("[space]\nname = 'kan'\nwidth = [2]", 'did you mean "widths"'),
        ("[space]\nname = 'kan'\nwidths = 'wide'", "widths"),
        ("[space]\nname = 3", "[space]"),
        ("[space]\nname = 'kan'\n[study]\ntrails = 3", 'did you mean "trials"'),
        ("[space]\nname = 'kan'\n[study]\ntrials = 'x'", "a whole number"),
        ("[space]\nname = 'kan'\n[[objective]]\nmetric = 'rmse'", "direction"),
        ("[task]\nname = 'digits'", "[space] is missing"),
        ("limits = 3\n[space]\nname = 'kan'", "[limits]"),
        ("study = 'x'\n[space]\nname = 'kan'", "[study]"),
        ("load = 3\n[space]\nname = 'kan'", '"load"'),
        ("space = ['kan', 'kan']", "[space]"),
        ("evaluator = 3\n[space]\nname = 'kan'", "[evaluator]"),
        ("objective = 3\n[space]\nname = 'kan'", "objective"),
        ("[space]\nname = 'kan'\n[limits]\nparams = 'few'", "a number"),
    ],
)
def test_a_wrong_study_file_is_one_sentence_and_exit_code_2(nas_command, text, said):
    Path("study.toml").write_text(text)
    assert said in nas_command.refused("search", "study.toml")


def test_a_study_of_another_space_is_refused_and_kept(nas_command):
    nas_command("search", "--study", "s", *CELLS, "--trials", 1)
    said = nas_command.refused("search", "--study", "s", "--space", "kan", "--trials", 1)
    assert "nasbench201" in said
    assert "nas resume s" in said
    assert len(nas_command.json("show", "s")["trials"]) == 1
    kept = tomllib.loads(Path("results/studies/s/study.toml").read_text())
    assert kept["space"]["name"] == "nasbench201"


def test_a_study_is_found_and_resumed_from_another_folder(nas_command, monkeypatch, tmp_path):
    first = nas_command.json("search", "--study", "s", *CELLS, "--trials", 2)["trials"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    shown = nas_command.json("show", "s", "--results", "../results")["trials"]
    assert [t["architecture"] for t in shown] == [t["architecture"] for t in first]
    longer = nas_command.json("resume", "s", "--results", "../results", "--trials", 3)["trials"]
    assert [t["architecture"] for t in longer[:2]] == [t["architecture"] for t in first]
    assert list(elsewhere.iterdir()) == []


def test_looking_at_a_study_whose_journal_is_gone_makes_nothing(nas_command):
    nas_command("search", "--study", "s", *CELLS, "--trials", 1)
    journal = Path("results/studies/s/study.journal")
    journal.unlink()
    for command in ("show", "resume"):
        assert "is missing" in nas_command.refused(command, "s")
    assert not journal.exists()


OWN = """
from nas import registry
from search_spaces.kan import kan

@registry.space("own_kan")
def own_kan():
    '''A small KAN of my own.'''
    return kan(widths=(4,), depths=(1,))
"""


def test_the_printed_lines_of_reuse_work_for_parts_of_ones_own(nas_command):
    Path("own.py").write_text(OWN)
    nas_command(
        "--load", "own.py", "search", "--space", "own_kan", "--task", "function_fit",
        "--set", "epochs=1", "--set", "num_train=64", "--trials", 1,
    )  # fmt: skip
    line = next(x for x in nas_command.out.splitlines() if x.startswith("Reuse it:"))
    code = line.partition('-c "')[2].rstrip('"')
    root = str(Path(nas.__file__).parent.parent)
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": root})
    assert "nas --load" in nas_command.out


@pytest.mark.parametrize("text", ["def f(:", "1 / 0", "import no_such_module"])
def test_a_file_of_parts_that_cannot_be_loaded_is_one_sentence(nas_command, text):
    Path("broken.py").write_text(text)
    assert "cannot be loaded" in nas_command.refused("--load", "broken.py", "list", "spaces")


def test_unnamed_searches_get_names_of_their_own(nas_command):
    first = nas_command.json("search", *CELLS, "--trials", 1)["study"]
    second = nas_command.json("search", *CELLS, "--trials", 1)["study"]
    assert first != second


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(nas_command, shell):
    assert "_NAS_COMPLETE" in nas_command("completion", shell)


def test_the_shell_completes_registered_names():
    environment = {"_NAS_COMPLETE": "bash_complete", "COMP_WORDS": "nas search --space nas"}
    environment |= {"COMP_CWORD": "3", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd())}
    script = "import sys; sys.argv = ['nas']; from nas.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert "nasbench201" in done.stdout


def test_data_lists_where_things_come_from(nas_command):
    rows = nas_command.json("data")
    assert {"digits", "fashion_mnist", "nasbench201"} <= {row["name"] for row in rows}
    assert all(fact["ok"] for fact in nas_command.json("data", "digits"))


def test_ctrl_c_leaves_the_study_whole_and_says_how_to_go_on(tmp_path):
    script = "import sys; from nas.cli import main; sys.argv = ['nas', *sys.argv[1:]]; main()"
    arguments = ["search", "--study", "s", *CELLS, "--trials", "500", "--set", "epochs=3"]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin"},
    )
    journal = tmp_path / "results/studies/s/study.journal"
    while not journal.is_file() or journal.read_text().count('"op_code":6') < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(2)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nas resume s" in said
    assert "Traceback" not in said
