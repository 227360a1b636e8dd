"""What people read or edit: text on the console, the progress and summary of a run, and files with mentions to review."""
