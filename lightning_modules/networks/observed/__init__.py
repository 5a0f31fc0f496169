"""What a network shows of itself when it is looked at once: its layers, their layouts, its activations.

Nothing here makes networks.
"""
