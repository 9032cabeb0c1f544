"""What an installation has, how old it is, who owns it, and what became of every credential: for people who answer for it.

    facts -> report() -> Report -> page.html() | plain.as_json() | plain.as_csv()

Everything but gather.py is pure.
"""

from rotation.report.facts import Facts, Known
from rotation.report.report import Report, report

__all__ = ["Facts", "Known", "Report", "report"]
