"""From files to maps, attacks and figures in a line, for notebooks and scripts: by the modules that runs have.

Nothing is written. What belongs into thousands of rows belongs into a run, see ``scripts``.
"""
