"""`manage.py audit_ledger`: prove the ledger, and say what each check looked at and found."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.ledger.audit import FINDINGS_MAX, Verdict, audit, post_missing

SHOWN_MAX = 20  # of each check; --json tells all it has


class Command(BaseCommand):
    help = "Proves the ledger and what must be in it. Exits 1 if a check fails, naming the ids."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How it is told, and whether what is missing is posted first."""
        parser.add_argument("--json", action="store_true", help="one JSON object, all findings")
        parser.add_argument(
            "--post-missing",
            action="store_true",
            help="first post what must be there and is not, such as invoices that are older than"
            " the ledger; safe to repeat",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """One instant of the database is audited, whatever is posted meanwhile."""
        posted = post_missing() if options["post_missing"] else None
        verdicts = audit()
        if options["json"]:
            self.stdout.write(json.dumps(_object(verdicts, posted), indent=2))
        else:
            self._table(verdicts, posted)
        failed = [verdict.check for verdict in verdicts if not verdict.holds]
        if failed:
            raise CommandError(f"{len(failed)} of {len(verdicts)} checks fail: {', '.join(failed)}")

    def _table(self, verdicts: list[Verdict], posted: int | None) -> None:
        if posted is not None:
            self.stdout.write(f"{posted:,} missing entries posted.")
        self.stdout.write(f"{'check':<18} {'examined':>10} {'wrong':>7}  verdict  what it proves")
        for verdict in verdicts:
            self.stdout.write(
                f"{verdict.check:<18} {verdict.examined:>10,} {_count(verdict):>7}"
                f"  {_word(verdict):<7}  {verdict.proves}"
            )
            for finding in verdict.findings[:SHOWN_MAX]:
                whose = f"organisation {finding.tenant_id}: " if finding.tenant_id else ""
                self.stdout.write(f"    {whose}{finding.subject}: {finding.what}")
            if len(verdict.findings) > SHOWN_MAX:
                self.stdout.write("    ... --json tells the others")
        if all(verdict.holds for verdict in verdicts):
            self.stdout.write("The ledger is proved.")


def _object(verdicts: list[Verdict], posted: int | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "verdict": "pass" if all(verdict.holds for verdict in verdicts) else "fail",
        "checks": [
            {
                "check": verdict.check,
                "proves": verdict.proves,
                "examined": verdict.examined,
                "verdict": _word(verdict),
                "findings": [
                    {
                        "organisation": str(finding.tenant_id) if finding.tenant_id else None,
                        "subject": finding.subject,
                        "what": finding.what,
                    }
                    for finding in verdict.findings
                ],
            }
            for verdict in verdicts
        ],
    }
    return told if posted is None else told | {"posted": posted}


def _word(verdict: Verdict) -> str:
    return "pass" if verdict.holds else "fail"


def _count(verdict: Verdict) -> str:
    count = len(verdict.findings)
    return f"{count:,}+" if count == FINDINGS_MAX else f"{count:,}"
