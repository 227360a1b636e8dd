"""Output that people read on a terminal: the console, the progress and the summary of a run."""
