"""The report of a profile, or of several compared.

One HTML file with pictures and text, readable without a network.
"""

from ess_client.report.comparison import render_comparison, write_comparison
from ess_client.report.page import render_report, write_report

__all__ = ["render_comparison", "render_report", "write_comparison", "write_report"]
