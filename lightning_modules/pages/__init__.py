"""What a run leaves, laid out as one HTML page to hand on: everything is in the file, and nobody needs the tool.

Nothing here runs a network or knows a Trainer; it reads the folder of a run.
"""
