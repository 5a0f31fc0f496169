"""Tensors and summaries -> matplotlib figures.

Nothing here knows a logger or a Trainer.
"""
