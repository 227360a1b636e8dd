"""Output for people: console, progress and the summary of a run."""
