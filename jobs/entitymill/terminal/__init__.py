"""What people read or edit: the console, the progress and the summary of a run, and the files of reviewed samples."""
