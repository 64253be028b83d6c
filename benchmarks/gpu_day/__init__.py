"""The day a GPU is at hand: all that must be seen on a real card, in minutes, the most valuable first."""
