"""The report as a terminal shows it.

Knows: tables and colours. Must not know: how verdicts come about.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.conformance.verdicts import OUTCOMES, Difference, Report, Verdict

_COLOURS = {"failed": "red", "broken": "magenta"}


def print_report(report: Report, console: Console) -> None:
    """A table of the groups, then each check that failed, with its rule, its reason and a line that shows it again."""
    console.print(f"{report.base}  {report.software}", style="italic", soft_wrap=True, highlight=False)
    table = Table()
    shown = [outcome for outcome in OUTCOMES if outcome != "not reached" or report.count(outcome)]  # (in exams alone)
    for heading in ("group", *shown):
        table.add_column(heading, justify="left" if heading == "group" else "right")
    for group in sorted({verdict.group for verdict in report.verdicts}):
        row = [verdict for verdict in report.verdicts if verdict.group == group]
        counts = (sum(v.outcome == outcome for v in row) for outcome in shown)
        table.add_row(group, *(str(count or "") for count in counts))
    console.print(table)
    for verdict in report.verdicts:
        if verdict.outcome in ("failed", "broken"):
            _print_failure(verdict, console)
    for verdict in report.verdicts:
        if verdict.outcome == "not reached":
            console.print(f"[yellow]{verdict.rule} not reached[/]  {escape(verdict.text)}", soft_wrap=True)
    word = f"[{'green' if report.is_conformant else 'red'}]{report.conclusion}[/]"
    told = ", ".join(f"{report.count(outcome)} {outcome}" for outcome in shown if report.count(outcome) or outcome == "failed")
    console.print(f"{told} in {report.seconds} s: {word}")


def print_differences(differences: Sequence[Difference], console: Console) -> None:
    """What differs between two reports, a line each."""
    if not differences:
        console.print("no check came out otherwise")
    for one in differences:
        colour = "red" if one.is_regression else "default"
        before, after = one.before or "not checked", one.after or "not checked"
        console.print(
            f"[{colour}]{one.rule}[/]  {before} → {after}  {escape(one.text)}  [dim]{escape(one.check)}[/]", soft_wrap=True
        )


def _print_failure(verdict: Verdict, console: Console) -> None:
    colour = _COLOURS[verdict.outcome]
    console.print(f"\n[{colour}]{verdict.rule} {verdict.strength} {verdict.outcome}[/]  {escape(verdict.text)}", soft_wrap=True)
    console.print(f"  {verdict.source} {verdict.link}  [dim]{escape(verdict.check)}[/]", soft_wrap=True)
    console.print(f"  [{colour}]{escape(verdict.reason).replace(chr(10), chr(10) + '  ')}[/]", soft_wrap=True)
    if verdict.exchanges:
        last = verdict.exchanges[-1]
        asked = last.curl or last.request.partition("\n")[0]  # what a client sent, no curl line sends again
        console.print(f"  {escape(asked)}", soft_wrap=True, style="dim")
        console.print(f"  → {escape(last.answer.splitlines()[0])}", style="dim")
