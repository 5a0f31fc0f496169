"""From the rows of a run to its summary, and from the summary to its report.

Nothing here writes rows.
"""
