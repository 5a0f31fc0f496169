"""The command line and the folder that a run leaves (RUN), as a library: for our scripts and for yours.

Nothing here computes a number.
"""
