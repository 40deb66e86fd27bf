"""Wrong input: one line that says what is wrong and what to do, and no half-written page."""

from pathlib import Path

import pytest

from ncdemo.report import write_report
from ncdemo.spec import SpecError


def message(runs: list[Path], out: Path) -> str:
    with pytest.raises(SpecError) as caught:
        write_report(runs, out)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_runs(tmp_path):
    assert message([], tmp_path / "r.html") == "no run directory given; give at least one, e.g. runs/demo"


def test_no_such_folder(tmp_path):
    gone = tmp_path / "gone"
    assert message([gone], tmp_path / "r.html") == f"{gone}: no such folder; give a run directory, which ncdemo train or ncdemo bench wrote"


def test_a_file(tmp_path):
    file = tmp_path / "result.json"
    file.write_text("{}")
    assert message([file], tmp_path / "r.html") == f"{file}: is a file; give the run directory that holds it"


def test_not_a_run(tmp_path):
    said = message([tmp_path], tmp_path / "r.html")
    assert said.startswith(f"{tmp_path}: is not a run directory")
    assert said.endswith("give a folder that ncdemo train or ncdemo bench wrote")


def test_the_folder_of_runs_names_one(train_run, tmp_path):
    run = train_run()
    assert message([run.parent], tmp_path / "r.html").endswith(f"it holds some: give {run}")


def test_out_is_a_folder(train_run, tmp_path):
    assert message([train_run()], tmp_path) == f"{tmp_path}: is a folder; give the file to write, e.g. {tmp_path / 'report.html'}"


def test_out_cannot_be_written(train_run, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "report.html"
    assert message([train_run()], out) == f"{out}: cannot be written (File exists); give a path that you may write to"


def test_a_failed_report_leaves_the_old_page(train_run, tmp_path):
    out = write_report([train_run()], tmp_path / "r.html")
    before = out.read_bytes()
    message([tmp_path / "gone"], out)
    assert out.read_bytes() == before
