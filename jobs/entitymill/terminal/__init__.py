"""What people see: console, progress and the summary of a run."""
