"""Actions, what carries them out, what they cost, and the snapshots they lead to. Nothing here knows Ray."""
