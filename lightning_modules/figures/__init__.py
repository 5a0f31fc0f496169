"""Tensors and summaries -> matplotlib figures.

Nothing here knows a network or a logger.
"""
