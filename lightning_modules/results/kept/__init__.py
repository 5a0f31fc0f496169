"""What a run keeps of its images beside their rows: attribution maps and attacked images, in parts as the rows.

Nothing here makes them.
"""
