"""Read the source (the table of texts), and find which documents are new, changed or removed, and which rows are rejected.

No other package reads the source. `reader` opens and reads it; `unreadable_source` explains read errors. `source_columns`
checks the columns, `row_checks` validates the rows, and `column_proposal` suggests settings for a new table.

`changes` finds the documents that a run must process, and `rows_against_output` compares rows with the output. `change_feed`
reads what changed in the source since the last run, and `feed_against_output` compares only these changes with the output.
If the changes do not tell which rows of the source now have an id, `feed_against_output` reads these rows from the source.
"""
