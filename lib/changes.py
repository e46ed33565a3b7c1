"""Which commit changed which number of the ledger, and why: git's own history of results/claims.csv, so that nothing is noted by hand."""
from io import StringIO

import pandas as pd

from lib import runs
from lib.claims import NOT_TESTED

LEDGER = "results/claims.csv"
KEY, VALUES = ["profile", "claim"], ["verdict", "effect", "low", "high", "n", "test"]


def ledgers(root=runs.ROOT):
    """[(commit, date, subject, ledger)], the oldest first, of every commit that touched the ledger; empty without git or all its history.
    A commit is 40 hexadecimal digits, a date YYYY-MM-DD, a ledger indexed by profile and claim with the columns VALUES."""
    found = []
    if runs.git("rev-parse", "--is-shallow-repository", root=root) != "false":         # its oldest commit would seem to have made all
        return found
    log = runs.git("log", "--format=%H %as %s.", "--", LEDGER, root=root) or ""
    for line in filter(None, reversed(log.split("\n"))):
        commit, date, subject = line[:-1].split(" ", 2)
        ledger = runs.git("show", f"{commit}:./{LEDGER}", root=root)       # None in the commit that takes it away
        ledger = pd.read_csv(StringIO(ledger)) if ledger else pd.DataFrame(columns=KEY + VALUES)
        found.append((commit, date, subject, ledger.drop_duplicates(KEY, keep="last").set_index(KEY)[VALUES]))
    return found


def changes(root=runs.ROOT):
    """A row per commit and claim whose verdict or effect it changed, the newest commit first: commit, date, subject, profile, claim, and
    VALUES before and after (dicts; None where the claim was not there)."""
    rows, before = [], {}
    for commit, date, subject, ledger in ledgers(root):
        after = ledger.to_dict("index")
        for profile, claim in dict.fromkeys([*after, *before]):
            old, new = before.get((profile, claim)), after.get((profile, claim))
            if _told(old) != _told(new):
                rows.append((commit, date, subject, profile, claim, old, new))
        before = after
    rows = [row for commit in reversed(dict.fromkeys(row[0] for row in rows)) for row in rows if row[0] == commit]
    return pd.DataFrame(rows, columns=["commit", "date", "subject", *KEY, "before", "after"])


def _told(values):
    """Verdict and effect as finely as the report shows them; a claim that is not tested says as much as one that is absent."""
    return None if values is None or values["verdict"] == NOT_TESTED else (values["verdict"], f"{values['effect']:.3f}")
