"""changes: what each commit of a repository made here changed in the ledger, and how the report tells it."""
import os
import re
import subprocess

import pytest

from lib import pages
from lib.changes import changes

HEAD = "claim,profile,statement,source,test,effect,low,high,n,verdict,runs\n"
IDENTITY = {f"GIT_{who}_{what}": "someone" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def line(claim="temperature_helps", effect="0.0123456", verdict="undecided", profile="textures"):
    bounds = f"{effect},-0.1,0.2,3" if effect else ",,,0"
    return f"{claim},{profile},s,o,t,{bounds},{verdict},\n"


@pytest.fixture
def repository(tmp_path):
    """A function that commits so many lines of a ledger with a subject."""
    def git(*args):
        subprocess.run(["git", "-C", tmp_path, *args], check=True, capture_output=True, env=os.environ | IDENTITY)
    git("init")
    (tmp_path / "results").mkdir()

    def commit(subject, *lines):
        (tmp_path / "results" / "claims.csv").write_text(HEAD + "".join(lines))
        git("add", "-A")
        git("commit", "--allow-empty", "-m", subject)
    commit.root, commit.git = tmp_path, git
    return commit


def test_a_commit_is_told_with_what_it_changed_and_nothing_else(repository):
    same = line("negatives_helps", "0.5", "supported")
    repository("not yet", line(effect="", verdict="not tested"))
    repository("first runs\tof both", line(), same)
    repository("the last digits", line(effect="0.0123999"), same)
    repository("three seeds", line(effect="0.05", verdict="supported"), same, line(profile="quick", effect="", verdict="not tested"))
    repository("a claim goes", line(effect="0.05", verdict="supported"))
    found = changes(repository.root)
    told = [(r.subject, r.claim, *(v and (v["verdict"], round(v["effect"], 4)) for v in (r.before, r.after))) for r in found.itertuples()]
    assert [(subject, claim) for subject, claim, *_ in told] == [
        ("a claim goes", "negatives_helps"), ("three seeds", "temperature_helps"),
        ("first runs\tof both", "temperature_helps"), ("first runs\tof both", "negatives_helps")]
    assert told[0][2:] == (("supported", 0.5), None)
    assert told[1][2:] == (("undecided", 0.0124), ("supported", 0.05))
    assert told[2][3] == ("undecided", 0.0123) and found.before[2]["verdict"] == "not tested"
    assert found.commit.str.fullmatch("[0-9a-f]{40}").all() and found.date.str.fullmatch(r"\d{4}-\d\d-\d\d").all()


def test_a_ledger_taken_away_and_a_folder_without_history_are_no_error(repository, tmp_path):
    assert changes(repository.root).empty
    repository("runs", line())
    repository.git("rm", "results/claims.csv")
    repository.git("commit", "-m", "all goes")
    gone = changes(repository.root).iloc[0]
    assert gone.subject == "all goes" and gone.after is None and gone.before["verdict"] == "undecided"
    (tmp_path / ".git" / "HEAD").write_text("broken")
    assert changes(repository.root).empty and "clone the repository whole" in pages.changes_html(changes(repository.root), [])


def test_a_shallow_clone_tells_nothing_rather_than_that_its_oldest_commit_made_all(repository, tmp_path):
    repository("first", line())
    repository("then", line(effect="0.5"))
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{repository.root}", tmp_path / "shallow"], check=True)
    assert len(changes(repository.root)) == 2 and changes(tmp_path / "shallow").empty


def test_a_ledger_with_a_claim_twice_and_a_subject_with_odd_characters_are_read(repository):
    repository("odd\x0b \u2028 end ", line(), line(effect="0.7"))
    found = changes(repository.root)
    assert len(found) == 1 and found.after[0]["effect"] == 0.7 and "end" in found.subject[0]


def test_the_page_tells_effects_in_their_unit_and_claims_that_are_gone(repository):
    repository("<b>first</b>", line(effect="", verdict="not tested"), line("long_gone/resnet18", "0.5", "supported"))
    repository("then", line(), line("long_gone/resnet18", "0.5", "supported"))
    page = pages.changes_html(changes(repository.root), ["03_temperature"]).replace("<wbr>", "")
    assert "&lt;b&gt;first" in page and "<b>first" not in page
    assert "+1.2 points" in page and "03_temperature.html" in page and "not tested" in page
    assert "long_gone" in page and "+0.5" in page and "ResNet-18" in page and "no claim" in page
    order = [int(key.split()[1]) for key in re.findall(r'data-order="(\d{4}-\d\d-\d\d \d{6})"', page)]
    assert len(order) == 2 and order == sorted(order, reverse=True)         # the newest first, also where a reader sorts by date


def test_the_page_tells_a_commits_subject_in_its_first_row_and_on_demand_in_the_others(repository):
    repository("both at once", line(), line("long_gone/resnet18", "0.5", "supported"))
    page = pages.changes_html(changes(repository.root), [])
    assert page.count("<br>both at once") == page.count("</summary>both at once</details>") == 1
