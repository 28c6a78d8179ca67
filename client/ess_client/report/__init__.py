"""The report of a profile: one HTML file with pictures and text, readable without a network."""

from ess_client.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
