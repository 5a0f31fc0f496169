"""From one file to one RGB image of 8 bits, or to a sentence that says why not.

Nothing here knows where images come from or what a network sees. All of it may be called by several threads at once.
"""
