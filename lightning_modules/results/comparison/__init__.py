"""Two runs compared: which of their rows are pairs, and how these differ.

Nothing here reads a RUN but its rows.
"""
