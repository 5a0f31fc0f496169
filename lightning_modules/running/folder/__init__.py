"""The folder that a run leaves (RUN): who writes it, what it was made from, and reading it back.

Nothing here reads the command line.
"""
