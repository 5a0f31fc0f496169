"""The parser of the command line: text as it was written, help, errors that say what would have been right.

Nothing here runs anything.
"""
