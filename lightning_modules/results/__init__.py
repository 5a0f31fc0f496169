"""What a run's numbers are: rows, summaries and reports.

Nothing here runs a network or knows a Trainer.
"""
