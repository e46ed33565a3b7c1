"""README.md's tables and results/README.md from the committed runs, for `python -m lib.report --readme`.

The front page answers in a few words and shows the main numbers; results/README.md has everything behind them.
"""
import re
from functools import partial

import pandas as pd

from lib import caveats, claims, models, runs, studies, summary
from lib.pages import FIGURE

NONE = "No committed profile has runs yet: every claim is *not tested*."
BEHIND = ("What each answer rests on, {}every verdict with its interval, what to bear in mind and what the words mean: "
          "[results/README.md](results/README.md).")
MORE = "{} more point{} to bear in mind, of single claims and measures: [results/README.md](results/README.md#to-bear-in-mind)."


def markdown(rows):
    """A frame of text as a Markdown table."""
    def line(cells):
        return "| " + " | ".join(str(c).replace("|", "\\|") or "–" for c in cells) + " |"
    return "\n".join([line(rows.columns), "|" + " --- |" * len(rows.columns), *[line(row) for row in rows.values]])


def bullets(sentences):
    """Sentences as a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def points(sentences):
    """What to bear in mind as a Markdown list, within it a list of each profile's (`by_profile`)."""
    return "\n".join(f"- On `{profile}`:\n" + "\n".join(f"  - {words}" for words in some) if profile else bullets(some)
                     for profile, some in summary.by_profile(sentences))


def profiles_of(t):
    """The committed profiles that have runs in the tidy table, the richest first."""
    return [p for p in studies.COMMITTED if len(t) and (t.profile == p).any()]


def numbers(t, profile):
    """A profile's headline table, above it what stands in it."""
    return f"`{profile}`: {summary.caption(t, profile)}\n\n{markdown(summary.headline(t, profile))}"


def protocol_of(t, profile):
    """How a profile's numbers came about, as a Markdown list."""
    return bullets(f"{what}: {words}" for what, words in summary.protocol(t, profile).items())


def front(t, rows):
    """README's section on results: in a few sentences, the paper's questions with short answers, the main claims by encoder, remedies
    against a longer training, what limits all of it (`caveats.limits`; what else to bear in mind is counted), the figure and the numbers
    of the first profile; and where the rest is.

    t: the tidy table (lib.report.table); rows: the ledger."""
    profiles = profiles_of(t)
    if not profiles:
        return NONE
    blocks = []
    for p in summary.complete(t, profiles):
        brief = pd.DataFrame([{"question": question, "answer": lead} for question, lead, _ in summary.answers(t, rows, p)])
        blocks += [bullets(summary.nutshell(t, rows, p)),
                   f"The paper's questions, answered on `{p}`{summary.of_what(t, p)} unless an answer names another profile or new seeds; "
                   "[what the words mean](results/README.md#words):", markdown(brief)]
    for i, (p, each) in enumerate(summary.grids(rows, profiles).items()):
        legend = f": {summary.MARKS}; {summary.IN_GRID}" if i == 0 else f"{summary.of_what(t, p)}, the same"
        blocks += [f"By encoder, on `{p}`{legend}:", markdown(each)]
    if len(compared := summary.against(t, rows)):
        blocks += [summary.RIVAL, markdown(compared), summary.sentence(summary.IN_AGAINST)]
    first, *others = profiles
    own = rows[rows.profile == first]
    chance = [f"On {first}, {words[0].lower()}{words[1:]}" for words in [caveats.by_chance(own, named=False)] if words] + caveats.power(own)
    notes = [*(sentence for p in profiles for sentence in summary.pending(t, p)), *summary.check_on_photographs(t), *chance,
             *(sentence for p in profiles for sentence in caveats.limits(t, p, repeats=bool(studies.PROFILES[p].repeats)))]
    more = len({*summary.bear_in_mind(t, rows, profiles)} - {*notes})
    blocks += ["To bear in mind:", points(notes)] if notes else []
    blocks += [MORE.format(more, "s" * (more > 1))] if more else []
    blocks += [f"![{FIGURE}](results/figure.svg)", f"The committed runs of `{first}`: {summary.DOTS}.", numbers(t, first),
               BEHIND.format(f"the numbers of {', '.join(f'`{p}`' for p in others)}, " if others else "")]
    return "\n\n".join(blocks)


def page(t, rows):
    """results/README.md: everything that the committed runs say, in words and tables."""
    profiles = profiles_of(t)
    if not profiles:
        return f"# Results\n\n{NONE}\n"
    whole = summary.overall(rows)
    tested = set(rows[rows.verdict != claims.NOT_TESTED].claim.str.split("/").str[0])
    verdicts = pd.DataFrame([{"claim": f"{c.statement} ({c.source})"} | {
        r.profile: f"**{r.verdict}** {summary.whose(rows, r)}{summary.said(r)}{summary.agreement(rows, r)}{summary.partly(rows, r)}".strip()
        for r in whole[whole.claim == c.name].itertuples()} for c in claims.CLAIMS if c.name in tested])
    asked = "\n\n".join(
        f"Answered on `{p}`{summary.of_what(t, p)} unless an answer names another profile or new seeds.\n\n"
        + "\n".join(f"- **{question}** *{lead}* {why}".rstrip() for question, lead, why in summary.answers(t, rows, p))
        for p in summary.complete(t, profiles))
    decisions = []
    for p in profiles:
        counts, chance, decided, alone = summary.short(rows, p)
        decisions += [f"### {p}", f"{counts} {chance}".strip(), bullets(f"{summary.MARK[v]} **{v}** {words}" for v, words in decided),
                      *([summary.ALONE, bullets(alone)] if alone else [])]
    lacking = (f"{len(claims.CLAIMS) - len(tested)} of {len(claims.CLAIMS)} claims are *not tested* on any encoder yet, for want of runs "
               "that the rule admits.") if len(tested) < len(claims.CLAIMS) else ""
    words = bullets(f"**{word}**: {meaning}" for word, meaning in summary.WORDS.items())
    if len(compared := summary.against(t, rows)):
        asked += f"\n\n{summary.RIVAL}\n\n{markdown(compared)}\n\n{summary.sentence(summary.IN_AGAINST)} {summary.MARKS}."
    parts = {"The paper's questions": asked, "Words": words,
             "Numbers": "\n\n".join(f"{numbers(t, p)}\n\n{protocol_of(t, p)}" for p in profiles),
             "What is decided": "\n\n".join(filter(None, decisions)),
             "To bear in mind": points(summary.bear_in_mind(t, rows, profiles)),
             "Every claim's verdict and interval": "\n\n".join(filter(None, (f"{summary.LEGEND}\n\n{markdown(verdicts)}" if tested else "",
                                                                             lacking)))}
    return "\n\n".join(["# Results", "Drawn by `make readme` from the committed runs ([runs](runs)); `make render` draws the same with "
                        "figures, curves and UMAPs.", *(f"## {title}\n\n{text}" for title, text in parts.items() if text)]) + "\n"


def speed(folder=None):
    """The README's section on speed, from the tables of `make bench` in results/bench: a column per encoder."""
    folder = folder or runs.ROOT / "results" / "bench"
    found = {name: pd.read_csv(folder / f"{name}.csv", dtype={"commit": str}).set_index("arch")
             for name in ("steps", "rivals", "limits", "parts") if (folder / f"{name}.csv").is_file()}
    if "steps" not in found:
        return "`make bench` measures it on your machine; our own tables are outstanding."
    steps, lacking = found["steps"], [name for name in ("rivals", "limits") if name not in found]

    missed = {}                                            # {what, with its goal: {encoder: [medians below it]}}

    def ratios(table, name, form, goal=0, what=""):
        """{encoder: median (least to most)}; a goal that a median does not reach is noted in `missed`."""
        for a, value in table[name].items():
            if round(value, 2 if form.endswith("%") else 1) < goal:
                short = missed.setdefault(f"{what} (goal {goal:{form if form.endswith('%') else 'g'}}: ", {})
                short.setdefault(models.ENCODERS[a].label, []).append(f"{value:{form}}")
        return {a: f"{row[name]:{form}} ({row[f'{name}_least']:{form}} to {row[f'{name}_most']:{form}})" for a, row in table.iterrows()}

    rows = {"whole training step, images/s": {a: f"{row.whole_step_images_per_second:,.0f}" for a, row in steps.iterrows()},
            f"share of the bare model step's rate (goal {steps.goal.iloc[0]:.0%})": ratios(
                steps, "ratio", ".0%", steps.goal.iloc[0], "the share of the bare step's rate")}
    if "limits" in found:
        rows["bare step, share of this machine's limit (its rate of one large product or copy)"] = {
            a: f"{share:.0%}" for a, share in found["limits"].share_of_limit.items()}
    if "parts" in found:
        each = {a: part[part.share.notna()].nlargest(3, "share") for a, part in found["parts"].groupby(level=0)}
        rows["its three longest parts: share of the time, how many times as long as their own limit"] = {
            a: ", ".join(f"{r.part} {r.share:.0%}, {r.times_its_limit:.1f} times" for r in part.itertuples()) for a, part in each.items()}
    for batch, table in found["rivals"].groupby("batch_size", sort=False) if "rivals" in found else ():
        rivals = {name: part for name, part in table.groupby("pipeline", sort=False)}
        for name, part in rivals.items():
            if name.startswith("ours") or "bare" in name:                  # those have other steps or no data
                continue
            goal, whom = part.goal.iloc[0], f"{name}, batches of {batch}"
            rows[f"ours, times as fast as {whom}{f' (goal {goal:g})' if goal > 0 else ''}"] = ratios(
                part, "ours_is_times_as_fast", ".1f", goal, f"times as fast as {name}")
            if "goal_with_the_same" in part and (goal := part.goal_with_the_same.iloc[0]) > 0:     # not on a GPU
                rows[f"the same with torchvision's layers on both sides, batches of {batch} (goal {goal:g})"] = ratios(
                    part, "with_the_same_layers", ".1f", goal, f"times as fast as {name} with the same layers")
            if (bare := rivals.get(f"{name}, bare step")) is not None:
                most = part.ours_is_times_as_fast / bare.ours_is_times_as_fast
                rows[f"{whom}, on a constant batch, times as fast as {name}: the most that a pipeline could give"] = {
                    a: f"{value:.1f}" for a, value in most.items()}
    drawn = pd.DataFrame([{"measured": what} | {models.ENCODERS[a].label: told.get(a, "") for a in steps.index}
                          for what, told in rows.items()])
    where = {}
    for r in (table.iloc[0] for table in found.values()):
        where.setdefault(f"{r.device}, {r.cores} cores, torch {r.torch}", {})[r.commit[:7]] = None
    machines = "; ".join(f"{machine}, at {', '.join(commits)}" for machine, commits in where.items())
    short = "; ".join(what + ", ".join(f"{label} {' and '.join(each)}" for label, each in some.items()) + ")"
                      for what, some in missed.items())
    goals = f"Goals that we set ourselves and missed: {short}. " if missed else ""
    return (f"{markdown(drawn)}\n\n{goals}A range in brackets: the least and the most of the rounds, before it their median. Measured by "
            f"`make bench` on {machines}; in turns, so that other load on the machine moves ratios less than rates. Tables, "
            "each with the commit that it was measured at, in "
            f"[results/bench](results/bench): {', '.join(sorted(path.stem for path in folder.glob('*.csv')))}"
            + (f"; outstanding: {' and '.join(lacking)}." if lacking else "."))


def commands(folder=None):
    """The README's sentence on how long its commands take, from results/bench/commands.csv."""
    path = (folder or runs.ROOT / "results" / "bench") / "commands.csv"
    if not path.is_file():
        return "`python -m lib.bench --only commands` measures how long they take; ours are outstanding."
    table = pd.read_csv(path, dtype={"commit": str})
    said = []
    for row, again in zip(table.itertuples(), table.what.duplicated(), strict=True):
        minutes = f"{max(row.seconds / 60, 1):.0f}"
        failed = f" (ended with status {row.status})" if row.status else ""
        said.append(f"`{row.what}`{' again' if again else ''} {minutes}{failed}")
    first = table.iloc[0]
    return (f"Minutes that each took in a fresh clone, one after another, on {first.device}, {first.cores} cores, "
            f"at {first.commit[:7]}: {', '.join(said)}. The first, the installation, is part of any other that finds no `.venv`.")


BETWEEN = re.compile(r"(<!-- (results|speed|commands): python -m lib.report --readme -->\n).*?(\n<!-- end of \2 -->)", re.DOTALL)


def refreshed(readme, t, rows):
    """README's text with what stands between each pair of markers drawn anew."""
    return BETWEEN.sub(lambda m: m[1] + {"results": partial(front, t, rows), "speed": speed, "commands": commands}[m[2]]() + m[3], readme)
